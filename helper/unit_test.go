package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func put(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOomKillsOfEachKindOfGroup(t *testing.T) {
	for _, row := range []struct{ own, file, text string }{
		{"0::/a/b\n", "a/b/memory.events", "low 0\noom 2\noom_kill 3\n"},
		{"0::/\n", "memory.events", "oom_kill 3\n"},
		{"0::/../elsewhere\n", "memory.events", "oom_kill 3\n"},
		{"4:cpu,memory:/x\n1:name=systemd:/\n", "memory/x/memory.oom_control", "under_oom 0\noom_kill 3\n"},
		{"4:memory:/docker/id\n", "memory/memory.oom_control", "oom_kill 3\n"},
	} {
		folder := t.TempDir()
		put(t, filepath.Join(folder, "fs", row.file), row.text)
		own := put(t, filepath.Join(folder, "own"), row.own)
		if count, known := oomKills(filepath.Join(folder, "fs"), own); count != 3 || !known {
			t.Errorf("%q: %d %v", row.own, count, known)
		}
	}
	if _, known := oomKills(t.TempDir(), "/none"); known {
		t.Error("there is no group")
	}
}

func TestTailHasTheKubeletsLimits(t *testing.T) {
	var many, long tail
	for at := range 200 {
		many.add([]byte(strconv.Itoa(at) + "\n"))
	}
	if lines := strings.Fields(many.text()); len(lines) != 80 || lines[79] != "199" {
		t.Errorf("%d lines", len(lines))
	}
	long.add([]byte(strings.Repeat("x", 5000)))
	long.add([]byte("\xff"))
	if text := long.text(); len(text) != 2047+3 || !strings.HasSuffix(text, "x\uFFFD") {
		t.Errorf("%d bytes", len(text))
	}
	if text := (&tail{}).text(); text != "" {
		t.Error(text)
	}
}

func TestAccountsOfAnImage(t *testing.T) {
	folder := t.TempDir()
	passwd := put(t, filepath.Join(folder, "passwd"), "broken\nroot:x:0:0::/root:/bin/sh\none:x:7:8::/home/one:\n")
	group := put(t, filepath.Join(folder, "group"), "a:x:10:other,one\nb:x:11:\nc:x:12:one\n")
	found := accountOf(7, passwd, group)
	if found.group != 8 || found.home != "/home/one" || !slices.Equal(found.groups, []uint32{10, 12}) {
		t.Errorf("%+v", found)
	}
	if found := accountOf(9, passwd, group); found.group != 0 || found.home != "/" || found.groups != nil {
		t.Errorf("%+v", found)
	}
	if found := accountOf(9, "/none", "/none"); found.home != "/" {
		t.Errorf("%+v", found)
	}
}

func TestEnvironment(t *testing.T) {
	own := []string{"A=1", variable + "0=secret", "B=2=3", "nonsense", "HOME=/root"}
	got := environmentOf(own, [][]string{{"A", "x\ny"}, {"C", ""}}, "/home/one")
	want := []string{"A=x\ny", "B=2=3", "HOME=/home/one", "C=", "PATH=" + defaultPath}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestAddressesTakeTheirMarkersPlaces(t *testing.T) {
	one := &Container{
		Argv: []string{"serve", "--at=" + lateMarker("podIP") + ":80", "plain"},
		Env:  [][]string{{"ALL", lateMarker("podIPs") + "!"}, {"HOST", lateMarker("hostIP")}, {"HOSTS", lateMarker("hostIPs")}},
	}
	one.fillIn([]string{"10.0.0.1", "fd00::1"})
	if one.Argv[1] != "--at=10.0.0.1:80" || one.Argv[2] != "plain" || one.Env[0][1] != "10.0.0.1,fd00::1!" {
		t.Fatal(one.Argv, one.Env)
	}
	if one.Env[1][1] != "10.0.0.1" || one.Env[2][1] != "10.0.0.1,fd00::1" {
		t.Fatal("the pod is its own host where none is named:", one.Env)
	}
	two := &Container{Address: "10.9.9.9", HostAddresses: []string{"192.0.2.1", "192.0.2.2"}, Env: [][]string{
		{"POD", lateMarker("podIP")}, {"HOSTS", lateMarker("hostIPs")},
	}}
	two.fillIn([]string{"10.0.0.1"})
	if two.Env[0][1] != "10.9.9.9" || two.Env[1][1] != "192.0.2.1,192.0.2.2" {
		t.Fatal(two.Env)
	}
}

func TestCounting(t *testing.T) {
	counter := counting{success: 2, failure: 3}
	said := ""
	for _, good := range []bool{true, true, false, false, true, false, false, false, false, true, true} {
		if verdict, known := counter.add(good); !known {
			said += "."
		} else if verdict {
			said += "+"
		} else {
			said += "-"
		}
	}
	if said != ".+.....--.+" {
		t.Error(said)
	}
}

func TestProbesKeepTheirPeriodInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var asked, told []float64
		probe := &Probe{Period: 10, SuccessThreshold: 1, FailureThreshold: 3}
		answers := []outcome{{good: true, known: true}, {}, {known: true}, {known: true}, {known: true}}
		ask := func() outcome {
			asked = append(asked, time.Since(began).Seconds())
			if len(asked) > len(answers) {
				return outcome{known: true}
			}
			return answers[len(asked)-1]
		}
		heard := 0
		hear := func(outcome) { heard++ }
		watchProbe(context.Background(), liveness, probe, 5*time.Second, ask, hear, func(bool) {
			told = append(told, time.Since(began).Seconds())
		})
		if heard != 4 {
			t.Errorf("%d answers were heard", heard)
		}
		// The second could not be tried, and was at once tried again.
		if !slices.Equal(asked, []float64{5, 15, 15, 25, 35}) || !slices.Equal(told, []float64{5, 35}) {
			t.Errorf("asked at %v, told at %v", asked, told)
		}
	})
}

func actorAt(t *testing.T, address string) (*actor, int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.Atoi(port)
	return &actor{address: host}, number
}

func TestHttpProbesFollowAsTheKubeletDoes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/fine", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://example.invalid/", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/host":
			if r.Host != "named" || r.Header.Get("X-A") != "b" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/slow":
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	actor, port := actorAt(t, server.Listener.Addr().String())
	for path, good := range map[string]bool{
		"/fine": true, "fine": true, "/here": true, "/away": true, "/loop": false, "/host": true, "/bad": false, "/slow": false,
	} {
		action := Action{Kind: "http", Port: port, Path: path, Scheme: "HTTP", Headers: [][]string{{"Host", "named"}, {"X-A", "b"}}}
		if path == "/here" || path == "/away" {
			action.Headers = nil
		}
		found := actor.probe(context.Background(), &Probe{Action: action, Timeout: 0.5})
		if !found.known || found.good != good {
			t.Errorf("%s: %+v", path, found)
		}
	}
	// A hook is content with any answer, and turns to plain HTTP where that is what is spoken.
	for _, path := range []string{"/bad", "/fine"} {
		if !actor.hook(context.Background(), Action{Kind: "http", Port: port, Path: path, Scheme: "HTTPS"}) {
			t.Error(path)
		}
	}
}

func TestHttpsIsNotVerified(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	actor, port := actorAt(t, server.Listener.Addr().String())
	action := Action{Kind: "http", Port: port, Path: "/", Scheme: "HTTPS"}
	if found := actor.probe(context.Background(), &Probe{Action: action, Timeout: 5}); !found.good {
		t.Errorf("%+v", found)
	}
}

func TestTcp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	actor, port := actorAt(t, listener.Addr().String())
	probe := &Probe{Action: Action{Kind: "tcp", Port: port}, Timeout: 5}
	if found := actor.probe(context.Background(), probe); !found.good {
		t.Errorf("%+v", found)
	}
	listener.Close()
	if found := actor.probe(context.Background(), probe); found.good || !found.known {
		t.Errorf("%+v", found)
	}
}

func TestGrpcHealth(t *testing.T) {
	var serving atomic.Uint64
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		if r.URL.Path != "/grpc.health.v1.Health/Check" || string(body[5:]) != "\x0a\x03one" || body[4] != 5 {
			w.Header().Set("Grpc-Status", "5")
			return
		}
		message := binary.AppendUvarint([]byte{0x08}, serving.Load())
		_, _ = w.Write(append([]byte{0, 0, 0, 0, byte(len(message))}, message...))
		w.Header().Set("Grpc-Status", "0")
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	actor, port := actorAt(t, listener.Addr().String())
	ask := func(service string) outcome {
		action := Action{Kind: "grpc", Port: port, Service: service}
		return actor.probe(context.Background(), &Probe{Action: action, Timeout: 5})
	}
	if found := ask("one"); found.good || !strings.Contains(found.words, "unhealthy") {
		t.Errorf("%+v", found)
	}
	serving.Store(1)
	if found := ask("one"); !found.good {
		t.Errorf("%+v", found)
	}
	if found := ask("two"); found.good || !strings.Contains(found.words, `grpc-status "5"`) {
		t.Errorf("%+v", found)
	}
}

func TestARecordFitsTheShortestLog(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	record := Record{UID: "u", By: "watch"}
	for at := range 20 {
		data := make([]byte, 3000)
		random.Read(data)
		message := base64.StdEncoding.EncodeToString(data)
		record.Containers = append(record.Containers, State{
			Name: strconv.Itoa(at), State: ended, Exit: &Exit{Message: message}, Previous: &Exit{Message: message},
		})
	}
	text, err := record.text([]byte("key"))
	if err != nil || len(text) > longestRecord+1 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if len(record.Containers[0].Exit.Message) != 4000 {
		t.Error("the record itself was cut")
	}
}

func TestMessagesShareTheirRoom(t *testing.T) {
	texts := []string{"short", strings.Repeat("x", 9000), strings.Repeat("y", 9000)}
	var messages []*string
	for at := range texts {
		messages = append(messages, &texts[at])
	}
	if share := fairShare(messages, 12288); share != (12288-5)/2 {
		t.Error(share)
	}
	if got := shorten("aé", 2); got != "a" {
		t.Errorf("%q", got)
	}
}

func TestLinksLeadNowhere(t *testing.T) {
	folder := t.TempDir()
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	err := place(Tree{Root: folder, Files: []File{{Path: "link/x", Mode: 0o644}}})
	if err == nil || codeOf(err) != exitHelper {
		t.Error(err)
	}
	left, _ := os.ReadDir(outside)
	if len(left) != 0 {
		t.Error("written outside")
	}
	// A link in a file's own place is replaced.
	target := put(t, filepath.Join(outside, "target"), "kept")
	if err := os.Symlink(target, filepath.Join(folder, "file")); err != nil {
		t.Fatal(err)
	}
	if err := place(Tree{Root: folder, Files: []File{{Path: "file", Mode: 0o4755, Content: []byte("new")}}}); err != nil {
		t.Fatal(err)
	}
	kept, _ := os.ReadFile(target)
	info, err := os.Lstat(filepath.Join(folder, "file"))
	if err != nil || string(kept) != "kept" || info.Mode() != 0o755|os.ModeSetuid {
		t.Error(err, string(kept), info.Mode())
	}
}

func TestAStateOfAnotherKeyIsNoState(t *testing.T) {
	folder := t.TempDir()
	pod := Pod{UID: "u", Containers: []Peer{{Name: "a", Role: roleMain}, {Name: "b", Role: roleMain}}, PeerWait: 1}
	open := func(key, self string) *board {
		made, err := newBoard(&Payload{Folder: folder, Key: []byte(key), Pod: pod}, self)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	a := open("key", "a")
	if err := a.publish(State{State: running}); err != nil {
		t.Fatal(err)
	}
	old, _ := os.ReadFile(filepath.Join(folder, "state", "a"))
	b, stranger := open("key", "b"), open("other", "")
	b.look()
	stranger.look()
	if b.seen["a"].State != running || stranger.seen["a"].Sequence != 0 {
		t.Errorf("%+v %+v", b.seen, stranger.seen)
	}
	if err := a.publish(State{State: ended, Final: true}); err != nil {
		t.Fatal(err)
	}
	b.look()
	put(t, filepath.Join(folder, "state", "a"), string(old))
	b.look()
	if !b.seen["a"].Final {
		t.Error("an older state is none")
	}
	// Another's state under one's own name.
	put(t, filepath.Join(folder, "state", "b"), string(old))
	if _, err := b.read("b"); err == nil {
		t.Error("it was signed for a")
	}
	if a.lost["b"] {
		t.Error("it never came")
	}
	a.lock.Close()
	if again := open("key", "a"); again.lock == nil {
		t.Error("a lock outlived its holder")
	}
}

func boardOf(t *testing.T, folder, self string) *board {
	pod := Pod{UID: "u", Containers: []Peer{{Name: "a", Role: roleMain}, {Name: "b", Role: roleMain}}, PeerWait: 1}
	made, err := newBoard(&Payload{Folder: folder, Key: []byte("key"), Pod: pod}, self)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestALockSaysWhoIsNoMore(t *testing.T) {
	folder := t.TempDir()
	a, b := boardOf(t, folder, "a"), boardOf(t, folder, "")
	if err := a.publish(State{State: running}); err != nil {
		t.Fatal(err)
	}
	isLost := func() bool {
		b.look()
		b.look()
		return b.lost["a"]
	}
	path := a.lockPath("a")
	// Who may only read the file can lock it for reading alone: neither life nor a second helper.
	stranger, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	own := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(stranger.Fd(), ofdSet, &own); err == nil {
		t.Error("a reader has the lock of a writer")
	}
	if isLost() {
		t.Error("it lives")
	}
	// Another file in the place of its lock says nothing of it.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	put(t, path, "")
	if isLost() {
		t.Error("a file that was put there took its life")
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	a.lock.Close()
	own = syscall.Flock_t{Type: syscall.F_RDLCK}
	if err := syscall.FcntlFlock(stranger.Fd(), ofdSet, &own); err != nil {
		t.Fatal(err)
	}
	if !isLost() {
		t.Error("a reader's lock is not its life")
	}
}

func TestNothingOnTheBoardKeepsItsReaderWaiting(t *testing.T) {
	folder := t.TempDir()
	if err := openBoard(folder); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", ".a.lock", ".b.lock", stopFile} {
		path := filepath.Join(stateFolder(folder), name)
		if err := syscall.Mkfifo(path, 0o666); err != nil {
			t.Fatal(err)
		}
		// Its writer never writes.
		held, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
	}
	done := make(chan struct{})
	watcher := boardOf(t, folder, "")
	go func() {
		watcher.look()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits")
	}
	if watcher.seen["a"].Sequence != 0 || watcher.stop != nil {
		t.Error(watcher.seen, watcher.stop)
	}
	_, err := newBoard(watcher.payload, "b")
	if err == nil || codeOf(err) != exitHelper || !strings.Contains(err.Error(), "not a file") {
		t.Error(err)
	}
}

func TestAnOrderToEndShortensThePatience(t *testing.T) {
	made := &watcher{board: boardOf(t, t.TempDir(), ""), began: 100}
	made.pod = &made.board.payload.Pod
	made.pod.PeerWait = 600
	made.board.seen["a"] = State{Name: "a", State: ended, Sequence: 2, Final: true, Exit: &Exit{FinishedAt: 110}}
	made.board.stop = &stop{At: 120, KillAt: 150}
	var next float64
	if made.isOver(121, &next) || next != 120+afterwards {
		t.Error("one that comes now may still say so", next)
	}
	if !made.isOver(120+afterwards, &next) {
		t.Error("who has not come by then will not begin")
	}
	made.board.stop = nil
	if made.isOver(120+afterwards, &next) {
		t.Error("nobody has ordered an end")
	}
}

func FuzzJoin(f *testing.F) {
	f.Add("2.0.1.00000000000000000000000000000000.AAAA", "2.1.2..")
	f.Add("2.-1.99999999999999999999.x.y", "")
	f.Fuzz(func(t *testing.T, one, two string) {
		text, err := join([]string{one, two})
		if err != nil && codeOf(err) != exitPayload {
			t.Error(err)
		}
		if err == nil {
			_, _ = parsePayload(text, "run")
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"kind":"run","folder":"/x","key":"AAAA"}`))
	sound, _ := json.Marshal(Payload{
		Kind: "run", Folder: "/x", Key: make([]byte, 32), Container: &Container{Name: "m", Role: roleMain, RestartPolicy: "Never"},
		Pod: Pod{Containers: []Peer{{Name: "m", Role: roleMain}}, PeerWait: 1},
	})
	f.Add(sound)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := parsePayload(text, "run"); err != nil && codeOf(err) != exitPayload {
			t.Error(err)
		}
	})
}
