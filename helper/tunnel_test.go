package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// offered is a `run` whose loop goes round and which has no container.
func offered(t testing.TB) *service {
	t.Helper()
	made := &supervisor{
		pod: &Pod{}, one: &Container{Name: "m"}, events: make(chan func()), left: make(chan struct{}),
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case work := <-made.events:
				work()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop) })
	return made.offer()
}

func ask(service http.Handler, method, path, body string) *httptest.ResponseRecorder {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	answer := httptest.NewRecorder()
	request, err := http.NewRequestWithContext(ctx, method, "http://helper/", strings.NewReader(body))
	if err != nil {
		return answer
	}
	request.URL.Path = path
	service.ServeHTTP(answer, request)
	return answer
}

func TestRequestsAreRefusedByName(t *testing.T) {
	service := offered(t)
	for _, row := range []struct {
		method, path, body, words string
		status                    int
	}{
		{"POST", "/exec", `{"command":["true"]}`, "does not run", 404},
		{"POST", "/exec", `{"command":"true"}`, "of the wrong type", 422},
		{"POST", "/exec", `{"unknown":1}`, "unknown field", 422},
		{"POST", "/attach", `{}`, "does not run", 404},
		{"POST", "/dial", `{"port":65536}`, "of the wrong type", 422},
		{"POST", "/stop", `{}`, "grace", 422},
		{"POST", "/stop", `{"grace":-1}`, "grace", 422},
		{"POST", "/stop", `{"grace":1e999}`, "cannot be understood", 422},
		{"PUT", "/files", `{"trees":[{"root":"x"}]}`, "not absolute", 422},
		{"PUT", "/files", `{"trees":[{"root":"/x","files":[{"path":"../y"}]}]}`, "no path of a file", 422},
		{"PUT", "/files", `{"trees":[{"root":"/x","atomic":true,"files":[{"path":"..data"}]}]}`, "no path of a file", 422},
		{"GET", "/usage", "", "does not run", 404},
		{"GET", "/sessions/x/outputs/stdout", "", "no such session", 404},
		{"PUT", "/sessions/x/input", "", "no such session", 404},
		{"PUT", "/sessions/x/size", "", "no such session", 404},
	} {
		answer := ask(service, row.method, row.path, row.body)
		if answer.Code != row.status || !strings.Contains(answer.Body.String(), row.words) {
			t.Errorf("%s %s: %d %s", row.method, row.path, answer.Code, answer.Body)
		}
	}
	var who introduction
	if err := json.Unmarshal(ask(service, "GET", "/introduction", "").Body.Bytes(), &who); err != nil || who.Container != "m" {
		t.Errorf("%+v %v", who, err)
	}
}

func FuzzRequests(f *testing.F) {
	f.Add("POST", "/exec", `{"command":["x"],"stdin":true,"tty":true}`)
	f.Add("POST", "/dial", `{"port":1,"inside":true}`)
	f.Add("PUT", "/sessions/x/size", `{"width":1,"height":2}`)
	f.Add("POST", "/stop", `{"grace":1}`)
	service := offered(f)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if strings.Contains(path, "files") || path == "/states" || path == "/end" {
			return
		}
		ask(service, method, path, body)
	})
}

func FuzzTrees(f *testing.F) {
	f.Add("a/b", "..data/c", true)
	f.Add("..data", "x/..data_tmp", false)
	f.Add("a", "a/b", false)
	f.Fuzz(func(t *testing.T, first, second string, atomic bool) {
		folder := t.TempDir()
		root := filepath.Join(folder, "volume")
		tree := Tree{Root: root, Atomic: atomic, Files: []File{{Path: first, Mode: 0o644}, {Path: second, Mode: 0o644}}}
		if checkTree(tree) != nil {
			return
		}
		for range 2 {
			_ = place(tree)
		}
		entries, err := os.ReadDir(folder)
		if err != nil || len(entries) > 1 {
			t.Errorf("%v %v", entries, err)
		}
	})
}

func TestVolumesAreReplacedAtOnce(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "a"), "in the way")
	put(t, filepath.Join(root, "kept"), "somebody's own")
	tree := func(text string, paths ...string) Tree {
		made := Tree{Root: root, Atomic: true}
		for _, one := range paths {
			made.Files = append(made.Files, File{Path: one, Mode: 0o640, Content: []byte(text)})
		}
		return made
	}
	for _, one := range []Tree{tree("1", "a", "d/b", "old"), tree("2", "a", "d/b"), tree("3")} {
		if err := place(one); err != nil {
			t.Fatal(err)
		}
		for _, file := range one.Files {
			data, err := os.ReadFile(filepath.Join(root, file.Path))
			if err != nil || !bytes.Equal(data, file.Content) {
				t.Errorf("%s: %q %v", file.Path, data, err)
			}
		}
		entries, _ := os.ReadDir(root)
		names := map[string]bool{}
		for _, file := range one.Files {
			first, _, _ := strings.Cut(file.Path, "/")
			names[first] = true
		}
		// Besides: what is not ours, the link, the folder that it shows.
		if len(entries) != len(names)+3 {
			t.Errorf("%v", entries)
		}
	}
}

func TestWhoHearsTooSlowlyIsCutOff(t *testing.T) {
	var all hearers
	fast, slow := all.join(), all.join()
	space := make([]byte, pieceSize)
	for range behindMost/pieceSize + 1 {
		all.hear(outName, space)
		if count, err := (heard{fast, outName}).Read(space); count != pieceSize || err != nil {
			t.Fatal(count, err)
		}
	}
	if _, err := (heard{slow, outName}).Read(space); err != errTooSlow {
		t.Error(err)
	}
	all.hear(errName, []byte("last"))
	all.close()
	if text, err := io.ReadAll(heard{fast, errName}); string(text) != "last" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if _, err := (heard{all.join(), outName}).Read(space); err != io.EOF {
		t.Error(err)
	}
}

func TestWhatWasLeftInTheBackgroundHoldsNobody(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	_, _ = write.WriteString("what lies there")
	output := newDraining(read)
	output.finish()
	if text, err := io.ReadAll(output); string(text) != "what lies there" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}

func TestUsageOfEachKindOfGroup(t *testing.T) {
	self := "0\n"
	own := func(text string) string { return put(t, filepath.Join(t.TempDir(), "own"), text) }
	for _, row := range []struct {
		own   string
		files map[string]string
		known bool
	}{
		{"0::/a\n", map[string]string{
			"a/cpu.stat": "usage_usec 5000\nuser_usec 1\n", "a/memory.current": "9000\n",
			"a/memory.stat": "anon 1\ninactive_file 2000\n", "a/cgroup.procs": "self",
		}, true},
		{"2:cpuacct:/a\n4:memory:/b\n", map[string]string{
			"cpuacct/a/cpuacct.usage": "5000000\n", "cpuacct/a/cgroup.procs": "self",
			"memory/b/memory.usage_in_bytes": "9000\n", "memory/b/cgroup.procs": "self",
			"memory/b/memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n",
		}, true},
		{"0::/a\n", map[string]string{
			"a/cpu.stat": "usage_usec 5000\n", "a/memory.current": "9000\n", "a/cgroup.procs": self,
		}, false},
		{"", nil, false},
	} {
		folder := t.TempDir()
		for name, text := range row.files {
			put(t, filepath.Join(folder, name), strings.ReplaceAll(text, "self", strconv.Itoa(os.Getpid())))
		}
		found := usageOf(folder, own(row.own))
		if found.CPU == nil || found.Memory == nil {
			t.Fatalf("%q: %+v", row.own, found)
		}
		if is := *found.CPU == 5_000_000 && *found.Memory == 7000; is != row.known {
			t.Errorf("%q: %d %d", row.own, *found.CPU, *found.Memory)
		}
	}
}
