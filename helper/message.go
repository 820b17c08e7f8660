package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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
