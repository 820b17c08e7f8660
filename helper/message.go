package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	longestMessage = 4096 // bytes of a termination message (MaxContainerTerminationMessageLength)
	longestTail    = 2048 // bytes of a log as message (MaxContainerTerminationMessageLogLength)
	tailLines      = 80   // and its lines (MaxContainerTerminationMessageLogLines)
)

// note is the file where a container leaves its termination message. It is held open from before
// the container's first start: whatever is put at its path meanwhile is not read.
type note struct {
	path  string
	file  *os.File
	owner *syscall.Credential
}

// newNote makes the file. Where it cannot be made there is no message: a helper that is not root
// cannot make /dev/termination-log.
func newNote(path string, owner *syscall.Credential) *note {
	made := &note{path: path, owner: owner}
	if path != "" {
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		made.create()
	}
	return made
}

func (n *note) create() {
	_ = os.Remove(n.path)
	file, err := os.OpenFile(n.path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return
	}
	if n.owner != nil {
		_ = file.Chown(int(n.owner.Uid), int(n.owner.Gid))
	}
	_ = file.Chmod(0o666)
	n.file = file
}

// empty prepares for another run. A container that has removed the file gets a new one only where
// it could make that itself: links in its way must not lead the helper elsewhere.
func (n *note) empty() {
	if n.file == nil {
		return
	}
	_ = n.file.Truncate(0)
	ours, err := n.file.Stat()
	there, also := os.Lstat(n.path)
	if n.owner == nil && err == nil && (also != nil || !os.SameFile(ours, there)) {
		n.file.Close()
		n.file = nil
		n.create()
	}
}

// text is the end of the message, as the kubelet reads it.
func (n *note) text() string {
	if n.file == nil {
		return ""
	}
	info, err := n.file.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-longestMessage)
	data, _ := io.ReadAll(io.NewSectionReader(n.file, from, longestMessage))
	return clean(data)
}

// clean makes text of bytes: what is cut or no UTF-8 becomes U+FFFD.
func clean(data []byte) string { return strings.ToValidUTF8(string(data), "\uFFFD") }

// tail keeps the end of what a container wrote to both of its streams.
type tail struct {
	mutex sync.Mutex
	data  []byte
}

func (t *tail) add(data []byte) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.data = append(t.data, data...)
	if over := len(t.data) - longestTail; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
}

// text is the last lines, within the kubelet's limits.
func (t *tail) text() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	lines := bytes.SplitAfter(t.data, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return clean(bytes.Join(lines[max(0, len(lines)-tailLines):], nil))
}

// streams are a container's standard output and error.
type streams struct {
	files [2]*os.File
	ours  [2]*os.File
	tail  *tail
	done  sync.WaitGroup
}

// newStreams gives the helper's own streams where nobody needs to know what is written, so that it
// stands in nobody's way; else pipes, whose ends are copied on byte by byte.
func newStreams(through bool, credential *syscall.Credential) (*streams, error) {
	made := &streams{files: [2]*os.File{os.Stdout, os.Stderr}}
	if !through {
		return made, nil
	}
	made.tail = &tail{}
	for at, target := range made.files {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if credential != nil {
			// So that the container may open /dev/stdout by name.
			_ = write.Chown(int(credential.Uid), int(credential.Gid))
		}
		made.files[at], made.ours[at] = write, read
		made.done.Add(1)
		go made.copy(target, read)
	}
	return made, nil
}

func (s *streams) copy(target, source *os.File) {
	defer s.done.Done()
	// A writer should get an error where nobody reads any more, as it would without a helper.
	defer source.Close()
	space := make([]byte, 32<<10)
	for {
		count, err := source.Read(space)
		if count > 0 {
			s.tail.add(space[:count])
			if _, failed := target.Write(space[:count]); failed != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// started closes what the container now has.
func (s *streams) started() {
	if s.tail != nil {
		for _, one := range s.files {
			one.Close()
		}
	}
}

// drain waits until all that was written has been copied. Somebody from outside of the container
// may still hold an end: then for `limit` only.
func (s *streams) drain(limit time.Duration) {
	if s.tail == nil {
		return
	}
	done := make(chan struct{})
	go func() { s.done.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
		for _, one := range s.ours {
			_ = one.SetReadDeadline(time.Now())
		}
		// What stands in the way then is the helper's own output: that is waited for.
		<-done
	}
}
