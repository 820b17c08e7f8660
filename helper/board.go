package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The board is a folder that all containers of a pod share. Each `run` keeps one file there that
// says how its container is, signed with the pod's key, and holds a lock as long as it lives.

const (
	longestState = 64 << 10        // bytes of a container's file
	tick         = 1 * time.Second // how often is looked though nothing was heard: a lock tells nobody
)

// State is one container as its helper sees it.
type State struct {
	Name     string   `json:"name"`
	State    string   `json:"state"` // waiting, running or ended
	Sequence int      `json:"sequence"`
	Final    bool     `json:"final"` // it will not change any more
	Restart  int      `json:"restart"`
	Reason   string   `json:"reason,omitempty"`  // of waiting
	Message  string   `json:"message,omitempty"` // of waiting
	Since    *float64 `json:"since,omitempty"`   // of running: when it began
	Opening  bool     `json:"opening,omitempty"` // running, and its post-start hook is not over
	Exit     *Exit    `json:"exit,omitempty"`
	Backoff  float64  `json:"backoff,omitempty"` // of ended: seconds from this end to the next run
	Previous *Exit    `json:"previous,omitempty"`
	Started  bool     `json:"started"`
	Ready    bool     `json:"ready"`
	StopWhy  string   `json:"stop_why,omitempty"` // which order ended it: of whyDeadline and so on
	Notices  []Notice `json:"notices,omitempty"`  // oldest first; of all of its runs
	Lock     uint64   `json:"lock,omitempty"`     // the inode of its lock: another file is not its
}

// stop is an order to the whole pod: it ends from `At` and is killed at `KillAt`.
type stop struct {
	At     float64 `json:"at"`
	KillAt float64 `json:"kill_at"`
}

const stopFile = ".stop" // no container's name begins so

const (
	waiting = "waiting"
	running = "running"
	ended   = "ended"
)

type board struct {
	payload *Payload
	seen    map[string]State
	lost    map[string]bool
	stop    *stop // what was asked of the whole pod; nil: nothing yet
	self    string
	lock    *os.File // held as long as this process lives
	inode   uint64   // of it
	last    int
	changed chan struct{}
}

func stateFolder(folder string) string { return filepath.Join(folder, "state") }

// openBoard makes the board's folder: any user of the pod may add a file, and none take another's.
func openBoard(folder string) error {
	place := stateFolder(folder)
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = os.Mkdir(place, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(place, 0o777|fs.ModeSticky)
	}
	if err != nil {
		return fail(exitHelper, "cannot make %s: %s", place, reasonOf(err))
	}
	return nil
}

func newBoard(payload *Payload, self string) (*board, error) {
	if err := openBoard(payload.Folder); err != nil {
		return nil, err
	}
	made := &board{
		payload: payload, seen: map[string]State{}, lost: map[string]bool{}, self: self,
		changed: make(chan struct{}, 1),
	}
	if self != "" {
		if err := made.hold(); err != nil {
			return nil, err
		}
	}
	watchFolder(stateFolder(payload.Folder), made.changed)
	return made, nil
}

func (b *board) lockPath(name string) string {
	return filepath.Join(stateFolder(b.payload.Folder), "."+name+".lock")
}

// openRegular opens a file of the board, which anybody of the pod may have put there: what would
// have its reader wait is refused. The inode is its number in the board's file system.
func openRegular(path string, flags int) (file *os.File, inode uint64, err error) {
	file, err = os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a file")}
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Sys().(*syscall.Stat_t).Ino, nil
}

// Locks of open file descriptions (fcntl(2)), which package syscall does not name. To hold one for
// writing takes the right to write: nobody but its owner and root can. To ask who holds it takes
// nothing, and keeps it from nobody.
const (
	ofdGet = 36
	ofdSet = 37
)

// hold takes this container's lock, which the kernel gives back when this process is no more.
func (b *board) hold() error {
	file, inode, err := openRegular(b.lockPath(b.self), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return fail(exitHelper, "cannot write to the pod's folder: %s", plain(err))
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(file.Fd(), ofdSet, &lock); err != nil {
		file.Close()
		return fail(exitHelper, "another helper already runs the container %q of this pod", b.self)
	}
	b.lock, b.inode = file, inode
	return nil
}

// isAlive says whether the helper of a container holds its lock; true where that cannot be known,
// as with a file that is not the one of which it has told.
func (b *board) isAlive(name string, told uint64) bool {
	file, inode, err := openRegular(b.lockPath(name), os.O_RDONLY)
	if err != nil {
		return true
	}
	defer file.Close()
	lock := syscall.Flock_t{Type: syscall.F_RDLCK}
	err = syscall.FcntlFlock(file.Fd(), ofdGet, &lock)
	return err != nil || inode != told || lock.Type != syscall.F_UNLCK
}

func (b *board) mac(name string, text []byte) []byte {
	made := hmac.New(sha256.New, b.payload.Key)
	fmt.Fprintf(made, "podbridge state %d\n%s\n%d\n%s\n", version, b.payload.Pod.UID, b.payload.Pod.Attempt, name)
	made.Write(text)
	return made.Sum(nil)
}

// publish writes this container's state for the others.
func (b *board) publish(state State) error {
	b.last++
	state.Name, state.Sequence, state.Lock = b.self, b.last, b.inode
	b.seen[b.self] = state
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return b.put(b.self, text)
}

// put writes a signed file of the board.
func (b *board) put(name string, text []byte) error {
	line := hex.EncodeToString(b.mac(name, text)) + " " + string(text)
	place := stateFolder(b.payload.Folder)
	file, err := os.CreateTemp(place, "."+name+"-*")
	if err == nil {
		_, err = file.WriteString(line)
		if err == nil {
			err = file.Chmod(0o644)
		}
		if also := file.Close(); err == nil {
			err = also
		}
		if err == nil {
			err = os.Rename(file.Name(), filepath.Join(place, name))
		}
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}
	if err != nil {
		return fail(exitHelper, "cannot tell the pod's other containers: %s: %s", place, reasonOf(err))
	}
	return nil
}

// look reads what the others say. What is not signed or older than what was seen is ignored.
func (b *board) look() {
	for _, peer := range b.payload.Pod.Containers {
		if peer.Name == b.self || b.seen[peer.Name].Final {
			continue
		}
		alive := b.isAlive(peer.Name, b.seen[peer.Name].Lock)
		if state, err := b.read(peer.Name); err == nil && state.Sequence > b.seen[peer.Name].Sequence {
			b.seen[peer.Name] = state
		}
		// Its last word may have come between the two looks: a lock is given back after it.
		b.lost[peer.Name] = !alive && b.seen[peer.Name].Sequence > 0 && !b.seen[peer.Name].Final
	}
	if text, err := b.get(stopFile); err == nil {
		var found stop
		if json.Unmarshal(text, &found) == nil {
			b.heed(found)
		}
	}
}

func (b *board) read(name string) (State, error) {
	var state State
	text, err := b.get(name)
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err == nil && state.Name != name {
		err = errors.New("another container's")
	}
	return state, err
}

// get reads a file of the board, whose seal has to hold.
func (b *board) get(name string) ([]byte, error) {
	file, _, err := openRegular(filepath.Join(stateFolder(b.payload.Folder), name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, longestState))
	if err != nil {
		return nil, err
	}
	seal, text, _ := strings.Cut(string(data), " ")
	sum, err := hex.DecodeString(seal)
	if err != nil || !hmac.Equal(sum, b.mac(name, []byte(text))) {
		return nil, errors.New("not signed by the pod's key")
	}
	return []byte(text), nil
}

// order asks the whole pod to end. The first says from when, the one that kills first holds.
func (b *board) order(more stop) error {
	b.heed(more)
	text, err := json.Marshal(b.stop)
	if err != nil {
		return err
	}
	return b.put(stopFile, text)
}

func (b *board) heed(more stop) {
	if b.stop != nil {
		more = stop{min(b.stop.At, more.At), min(b.stop.KillAt, more.KillAt)}
	}
	b.stop = &more
}

// isOver says whether nothing more is to be expected of a container.
func (b *board) isOver(name string, patience bool) bool {
	state := b.seen[name]
	return state.Final || b.lost[name] || (state.Sequence == 0 && !patience)
}

func (b *board) peers(role string) []Peer {
	var found []Peer
	for _, one := range b.payload.Pod.Containers {
		if one.Role == role {
			found = append(found, one)
		}
	}
	return found
}

// admits says whether a container may start for the first time, as far as those before it go; `why`
// is why it never may. Once an init container has failed for good none may: see failedInit.
func (b *board) admits(self Peer, patience bool, wait float64) (goes bool, why string) {
	for _, peer := range b.payload.Pod.Containers {
		if peer.Name == self.Name && self.Role != roleMain {
			break
		}
		state := b.seen[peer.Name]
		if peer.Role == roleMain {
			if peer.Name == self.Name {
				break
			}
			if peer.Opens && patience && !b.lost[peer.Name] && !state.hasOpened() {
				return false, ""
			}
			continue
		}
		switch {
		case b.lost[peer.Name]:
			return false, fmt.Sprintf("the container %s is no more, and left no word of its end", peer.Name)
		case state.Sequence == 0 && !patience:
			return false, fmt.Sprintf("the container %s did not come within %g s", peer.Name, wait)
		case state.Final && state.Exit == nil:
			return false, fmt.Sprintf("the container %s was not started", peer.Name)
		case peer.Role == roleSidecar && state.Final:
			return false, fmt.Sprintf("the container %s has ended", peer.Name)
		case peer.Role == roleSidecar && !(state.State == running && state.Started):
			return false, ""
		case peer.Role == roleInit && !(state.Final && state.Exit.Code == 0):
			return false, ""
		}
	}
	return true, ""
}

// hasOpened says whether a container's first run has begun, post-start hook included, or will not.
func (s State) hasOpened() bool {
	return s.Final || s.State == ended || s.Restart > 0 || (s.State == running && !s.Opening)
}

// failedInit is the init container whose end is the pod's; empty: none.
func (b *board) failedInit() string {
	for _, one := range b.peers(roleInit) {
		state := b.seen[one.Name]
		if state.Final && (state.Exit == nil || state.Exit.Code != 0) {
			return one.Name
		}
	}
	return ""
}

// mainsOver is when the last main container ended for good; nil while one may go on.
func (b *board) mainsOver(now float64, patience bool) *float64 {
	latest := 0.0
	for _, one := range b.peers(roleMain) {
		if !b.isOver(one.Name, patience) {
			return nil
		}
		if exit := b.seen[one.Name].Exit; exit != nil && b.seen[one.Name].Final {
			latest = max(latest, exit.FinishedAt)
		} else {
			latest = now
		}
	}
	return &latest
}

// watchFolder says on `changed` that a file of a folder was put in place.
func watchFolder(folder string, changed chan<- struct{}) {
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	go func() {
		for range time.Tick(tick) {
			tell()
		}
	}()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return
	}
	if _, err := syscall.InotifyAddWatch(fd, folder, syscall.IN_MOVED_TO|syscall.IN_CLOSE_WRITE); err != nil {
		syscall.Close(fd)
		return
	}
	// A file that Go's poller knows: a read that waits takes no thread.
	file := os.NewFile(uintptr(fd), "inotify")
	go func() {
		space := make([]byte, 4096)
		for {
			if _, err := file.Read(space); err != nil {
				return
			}
			tell()
		}
	}()
}
