package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	pieceSize  = 16 << 10  // bytes that are copied at once
	behindMost = 256 << 10 // bytes that who is attached may be behind what a container writes
)

const outName, errName = "stdout", "stderr"

// streams are a container's standard input, output and error.
type streams struct {
	files    [3]*os.File         // what its process gets
	theirs   []*os.File          // those of them that are not ours as well
	ours     map[string]*os.File // our ends of its outputs, by their names
	input    *os.File            // our end of its input; nil: it has none that is ours
	terminal *os.File            // our end of its terminal; nil: it has none
	tail     *tail               // nil: nobody asks for it
	hearers  hearers
	done     sync.WaitGroup
	mutex    sync.Mutex
	last     map[string]byte // of what was copied
}

// newStreams gives the helper's own streams where nobody needs to know what is written, so that it
// stands in nobody's way; else pipes or a terminal, whose ends are copied on byte by byte.
func newStreams(one *Container, attachable bool, shell *shell) (*streams, error) {
	made := &streams{files: [3]*os.File{shell.null, os.Stdout, os.Stderr}, ours: map[string]*os.File{}, last: map[string]byte{}}
	if one.LogsAsMessage {
		made.tail = &tail{}
	}
	err := made.choose(one, attachable, shell.credential)
	if err != nil {
		made.started()
		for _, file := range made.ours {
			file.Close()
		}
		return nil, err
	}
	for name, source := range made.ours {
		target := map[string]*os.File{outName: os.Stdout, errName: os.Stderr}[name]
		made.done.Go(func() { made.copy(name, target, source) })
	}
	return made, nil
}

func (s *streams) choose(one *Container, attachable bool, owner *syscall.Credential) error {
	if one.Tty {
		ours, theirs, err := openTerminal(owner)
		if err != nil {
			return err
		}
		s.files = [3]*os.File{theirs, theirs, theirs}
		s.theirs = append(s.theirs, theirs)
		s.ours[outName], s.terminal = ours, ours
		if one.Stdin {
			s.input = ours
		}
		return nil
	}
	if one.Stdin {
		s.files[0] = os.Stdin
	}
	if one.Stdin && attachable {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		lend(read, owner)
		s.files[0], s.input = read, write
		s.theirs = append(s.theirs, read)
	}
	if !attachable && s.tail == nil {
		return nil
	}
	for at, name := range []string{outName, errName} {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		lend(write, owner)
		s.files[at+1], s.ours[name] = write, read
		s.theirs = append(s.theirs, write)
	}
	return nil
}

// lend has a container's user own its end of a pipe, so that it may open /dev/stdout by name.
func lend(file *os.File, owner *syscall.Credential) {
	if owner != nil {
		_ = file.Chown(int(owner.Uid), int(owner.Gid))
	}
}

func (s *streams) copy(name string, target, source *os.File) {
	// A writer should get an error where nobody reads any more, as it would without a helper.
	defer source.Close()
	space := make([]byte, pieceSize)
	for {
		count, err := source.Read(space)
		if count > 0 {
			if s.tail != nil {
				s.tail.add(space[:count])
			}
			s.hearers.hear(name, space[:count])
			s.mutex.Lock()
			s.last[name] = space[count-1]
			s.mutex.Unlock()
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
	for _, one := range s.theirs {
		one.Close()
	}
}

// unfinished says of which outputs the last line has no end. What is not copied may end anyhow.
func (s *streams) unfinished() map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	made := map[string]bool{}
	for _, name := range []string{outName, errName} {
		last, wrote := s.last[name]
		_, copied := s.ours[name]
		made[name] = (wrote && last != '\n') || (!copied && s.terminal == nil)
	}
	return made
}

// drain waits until all that was written has been copied. Somebody from outside of the container
// may still hold an end: then for `limit` only.
func (s *streams) drain(limit time.Duration) {
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
	if s.input != nil && s.input != s.terminal {
		s.input.Close()
	}
	s.hearers.close()
}

// hearers are those who are attached to a container's outputs.
type hearers struct {
	mutex sync.Mutex
	open  map[*hearer]bool
	over  bool
}

// hearer is one of them: it hears what is written from now on. Whoever is too far behind is cut
// off, because a container is never held up by those who look at it.
type hearer struct {
	mutex   sync.Mutex
	more    sync.Cond
	pending map[string]*bytes.Buffer
	behind  int
	over    bool
	cut     bool
}

func (h *hearers) join() *hearer {
	made := &hearer{pending: map[string]*bytes.Buffer{outName: {}, errName: {}}}
	made.more.L = &made.mutex
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.over {
		made.over = true
		return made
	}
	if h.open == nil {
		h.open = map[*hearer]bool{}
	}
	h.open[made] = true
	return made
}

func (h *hearers) leave(one *hearer) {
	h.mutex.Lock()
	delete(h.open, one)
	h.mutex.Unlock()
	one.end(false)
}

func (h *hearers) hear(name string, data []byte) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for one := range h.open {
		if !one.add(name, data) {
			delete(h.open, one)
		}
	}
}

func (h *hearers) close() {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.over = true
	for one := range h.open {
		one.end(false)
	}
	h.open = nil
}

func (h *hearer) add(name string, data []byte) bool {
	h.mutex.Lock()
	if h.behind+len(data) > behindMost {
		h.mutex.Unlock()
		h.end(true)
		return false
	}
	defer h.mutex.Unlock()
	h.behind += len(data)
	h.pending[name].Write(data)
	h.more.Broadcast()
	return true
}

func (h *hearer) end(cut bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.over, h.cut = true, h.cut || cut
	h.more.Broadcast()
}

var (
	errTooSlow = errors.New("it was read too slowly")
	errBroken  = errors.New("the other end broke it off")
)

// heard is one output as an attached reader has it.
type heard struct {
	from *hearer
	name string
}

func (h heard) Read(space []byte) (int, error) {
	h.from.mutex.Lock()
	defer h.from.mutex.Unlock()
	pending := h.from.pending[h.name]
	for pending.Len() == 0 && !h.from.over {
		h.from.more.Wait()
	}
	if h.from.cut {
		return 0, errTooSlow
	}
	count, err := pending.Read(space)
	h.from.behind -= count
	return count, err
}

func (h heard) Close() error {
	h.from.end(false)
	return nil
}

// draining is a command's output: once the command is over it has what lies there, and does not wait
// for what was left in the background and holds it.
type draining struct {
	file *os.File
	over chan struct{}
	left int
}

const (
	leftMost = 2 << 20               // bytes that are still read then; no two pipes hold more
	leftWait = 50 * time.Millisecond // and how long the next of them may take
)

func newDraining(file *os.File) *draining {
	return &draining{file: file, over: make(chan struct{}), left: leftMost}
}

func (d *draining) finish() {
	close(d.over)
	_ = d.file.SetReadDeadline(time.Now().Add(leftWait))
}

func (d *draining) Read(space []byte) (int, error) {
	over := false
	select {
	case <-d.over:
		over = true
		_ = d.file.SetReadDeadline(time.Now().Add(leftWait))
	default:
	}
	count, err := d.file.Read(space)
	if over {
		if d.left -= count; d.left < 0 {
			return 0, io.EOF
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	return count, atEnd(err)
}

func (d *draining) Close() error { return d.file.Close() }
