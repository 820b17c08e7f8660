package main

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// family starts processes and takes the ends of all children, those that were left to this process
// as well: it is the first process of its container, or stands in for it.
type family struct {
	mutex sync.Mutex
	ends  map[int]chan syscall.WaitStatus
	spawn chan func()
}

// newFamily begins to take ends. All processes are started from one thread: the kernel ties "die
// with your parent" and "no new privileges" to a thread.
func newFamily(noNewPrivileges bool) (*family, error) {
	made := &family{ends: map[int]chan syscall.WaitStatus{}, spawn: make(chan func())}
	if os.Getpid() != 1 {
		if err := prctl(prSetChildSubreaper, 1); err != nil {
			return nil, fail(exitHelper, "cannot take orphaned processes: %v", err)
		}
	}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		if noNewPrivileges {
			err = prctl(prSetNoNewPrivs, 1)
		}
		ready <- err
		for work := range made.spawn {
			work()
		}
	}()
	if err := <-ready; err != nil {
		return nil, fail(exitHelper, "cannot forbid new privileges: %v", err)
	}
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	go func() {
		for range deaths {
			made.reap()
		}
	}()
	return made, nil
}

func (f *family) reap() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if end, ours := f.ends[pid]; ours {
			end <- status
			delete(f.ends, pid)
		}
	}
}

// start runs a program; its status comes on the channel once.
func (f *family) start(program string, argv []string, how *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	type answer struct {
		pid int
		end chan syscall.WaitStatus
		err error
	}
	answers := make(chan answer)
	f.spawn <- func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		pid, err := syscall.ForkExec(program, argv, how)
		// The child's change of user may have made this process readable: until it ran its program
		// it had this process's memory.
		_ = harden()
		made := answer{pid, make(chan syscall.WaitStatus, 1), err}
		if err == nil {
			f.ends[pid] = made.end
		}
		go func() { answers <- made }()
	}
	made := <-answers
	return made.pid, made.end, made.err
}

// kill sends a signal to a process whose end has not been taken, or to its group.
func (f *family) kill(pid int, number syscall.Signal, group bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, ours := f.ends[pid]; !ours {
		return
	}
	if group {
		pid = -pid
	}
	_ = syscall.Kill(pid, number)
}

// killSession kills a process whose end has not been taken and what is of its session: its group,
// and the jobs of a shell.
func (f *family) killSession(pid int) {
	f.kill(pid, syscall.SIGKILL, true)
	for _, one := range descendants(os.Getpid()) {
		if session, known := sessionOf(one); known && session == pid {
			_ = syscall.Kill(one, syscall.SIGKILL)
		}
	}
}

// extinguish kills every descendant of this process, for at most `limit`; true when none is left.
func (f *family) extinguish(limit time.Duration) bool {
	until := time.Now().Add(limit)
	pause := time.Millisecond
	for {
		f.reap()
		// No child means no descendant: orphans are children of this process.
		if !f.hasChildren() {
			return true
		}
		for _, pid := range descendants(os.Getpid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(until) {
			return false
		}
		time.Sleep(pause)
		pause = min(pause*2, 50*time.Millisecond)
	}
}

func (f *family) hasChildren() bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	const pAll, wExited, wNoWait, wNoHang = 0, 4, 0x1000000, 1
	_, _, number := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, 0, wExited|wNoWait|wNoHang, 0, 0)
	return number != syscall.ECHILD
}

// descendants are the processes that came from `ancestor` and still live.
func descendants(ancestor int) []int {
	below := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, lives := parentOf(pid); lives {
			below[parent] = append(below[parent], pid)
		}
	}
	var found []int
	for front := []int{ancestor}; len(front) > 0; front = front[1:] {
		found = append(found, below[front[0]]...)
		front = append(front, below[front[0]]...)
	}
	return found
}

func parentOf(pid int) (int, bool) {
	fields := statOf(pid)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, err == nil
}

func sessionOf(pid int) (int, bool) {
	fields := statOf(pid)
	if len(fields) < 4 {
		return 0, false
	}
	session, err := strconv.Atoi(fields[3])
	return session, err == nil
}

// statOf is what the kernel says of a process, from its state on (field 3 of proc(5)).
func statOf(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	// The name, in brackets, may have anything in it.
	return strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+1:])
}
