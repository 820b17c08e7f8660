package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A run of a container is a folder and a process that keeps it: this same program, started as
// `provider-go run-container FOLDER` in a session of its own, so that it lives on when the provider
// goes. The keeper starts the command, writes its log, ends it when told, and says how it ended:
//
//	lock          held for as long as the keeper lives
//	control       a FIFO: lines with the time (Unix nanoseconds) at which to kill
//	log           see logs.go
//	started.json  written before the command starts
//	exit.json     written after its last byte is in the log
//
// With neither file, and nobody holding the lock, nothing was ever started. With a start and no
// exit the keeper died, and how the run ended will never be known.
const (
	lockFile, controlFile, logFile = "lock", "control", "log"
	startedFile, exitFile          = "started.json", "exit.json"
)

// The keeper's open files besides the standard ones.
const (
	lockFD = 3 + iota
	controlFD
	readyFD
)

// lastWords is how long a descendant that escaped may keep the log open after the end.
const lastWords = 2 * time.Second

// order is what a keeper is told on its standard input: secrets are neither in its arguments nor
// on disk.
type order struct {
	Argv     []string
	Env      []string
	Dir      string
	Backoff  time.Duration // how long this start had to wait after the run before
	Grace    time.Duration
	HardStop time.Duration // the run ends after this time, though no provider lives
}

type started struct {
	At      time.Time
	Backoff time.Duration
}

type ended struct {
	Code    int32
	Signal  int32
	Reason  string
	Message string
	Started time.Time // zero: it never did
	At      time.Time
}

// startRun starts a keeper. `news` is called when the command has started (or failed to), and when
// the keeper is gone. A folder in which a run was ever started is never used again.
func startRun(folder string, what order, news func()) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	err = syscall.Mkfifo(filepath.Join(folder, controlFile), 0o600)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Locked and opened here and handed down: from its first moment on the keeper has them.
	lock, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	control, err := os.OpenFile(filepath.Join(folder, controlFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyEnd.Close()
	keeper := exec.Command(self, "run-container", folder)
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keeper.ExtraFiles = []*os.File{lock, control, readyEnd}
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	keeper.Stdin = strings.NewReader(string(text))
	if err := keeper.Start(); err != nil {
		ready.Close()
		return err
	}
	go func() {
		io.Copy(io.Discard, ready)
		ready.Close()
		news()
		keeper.Wait()
		news()
	}()
	return nil
}

// isKept says whether a run's keeper lives.
func isKept(folder string) bool {
	return flock(folder, syscall.LOCK_SH|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// awaitKeeper returns once the run's keeper is gone.
func awaitKeeper(folder string) {
	for flock(folder, syscall.LOCK_SH) == syscall.EINTR {
	}
}

func flock(folder string, how int) error {
	lock, err := os.Open(filepath.Join(folder, lockFile))
	if err != nil {
		return err
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), how)
}

// endRun tells a keeper to send the stop signal now and to kill at that time. An error means that
// nobody listens: the keeper is gone.
func endRun(folder string, killAt time.Time) error {
	control, err := os.OpenFile(
		filepath.Join(folder, controlFile), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	_, err = fmt.Fprintln(control, killAt.UnixNano())
	return err
}

// runContainer is the keeper. It returns its own exit code, which nobody reads.
func runContainer(folder string) int {
	// Pdeathsig below is sent when the *thread* ends that started the command.
	runtime.LockOSThread()
	for _, fd := range []int{lockFD, controlFD, readyFD} {
		syscall.CloseOnExec(fd)
	}
	// Orphans of the command become children of the keeper, which ends them.
	const setChildSubreaper = 36
	syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	var what order
	if err := json.NewDecoder(os.Stdin).Decode(&what); err != nil {
		return 1
	}
	begin := started{time.Now(), what.Backoff}
	log, err := newLogWriter(filepath.Join(folder, logFile))
	if err != nil {
		return 1
	}
	if err := writeJSON(filepath.Join(folder, startedFile), begin); err != nil {
		return 1
	}
	// A shutdown's signals end the command, and through it the keeper.
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	pid, err := startCommand(what, log)
	end := ended{Started: begin.At}
	if err != nil {
		// The kubelet's own code and reason for a command that cannot be started.
		end = ended{Code: 128, Reason: "StartError", Message: err.Error()}
	} else {
		os.NewFile(readyFD, "ready").Close()
		go obey(pid, what, stops)
		end.Code, end.Signal = awaitCommand(pid)
		killOrphans()
		end.Reason = "Completed"
		if end.Code != 0 {
			end.Reason = "Error"
		}
	}
	end.At = time.Now()
	log.finish(lastWords)
	if err := writeJSON(filepath.Join(folder, exitFile), end); err != nil {
		return 1
	}
	return 0
}

// startCommand starts the command in a session of its own, with the log as its output.
func startCommand(what order, log *logWriter) (int, error) {
	for _, each := range what.Env {
		if path, found := strings.CutPrefix(each, "PATH="); found {
			os.Setenv("PATH", path)
		}
	}
	if what.Dir == "" {
		what.Dir = "/"
	}
	if err := os.Chdir(what.Dir); err != nil {
		return 0, fmt.Errorf("workingDir: %w", err)
	}
	program, err := exec.LookPath(what.Argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	stdout, err := log.pipe("stdout")
	if err != nil {
		return 0, err
	}
	defer stdout.Close()
	stderr, err := log.pipe("stderr")
	if err != nil {
		return 0, err
	}
	defer stderr.Close()
	return syscall.ForkExec(program, what.Argv, &syscall.ProcAttr{
		Env:   what.Env,
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// obey ends the command's process group when it is told to, or at the hard stop.
func obey(pid int, what order, stops <-chan os.Signal) {
	killTimes := make(chan time.Time)
	go func() {
		lines := bufio.NewScanner(os.NewFile(controlFD, controlFile))
		for lines.Scan() {
			if at, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				killTimes <- time.Unix(0, at)
			}
		}
	}()
	hardStop := time.After(what.HardStop)
	var killAt time.Time
	var kill <-chan time.Time
	for {
		at := time.Now().Add(what.Grace)
		select {
		case at = <-killTimes:
		case <-stops:
		case <-hardStop:
		case <-kill:
			syscall.Kill(-pid, syscall.SIGKILL)
			continue
		}
		if killAt.IsZero() && time.Until(at) > 0 {
			syscall.Kill(-pid, syscall.SIGTERM)
		}
		if killAt.IsZero() || at.Before(killAt) {
			killAt, kill = at, time.After(time.Until(at))
		}
	}
}

// awaitCommand reaps until the command has ended: its exit code (128 + signal), and the signal.
func awaitCommand(pid int) (code, number int32) {
	for {
		var status syscall.WaitStatus
		reaped, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil && err != syscall.EINTR {
			// Not to be had; never 0 for a code that is not known.
			return 137, 0
		}
		if reaped != pid {
			continue
		}
		if status.Signaled() {
			return 128 + int32(status.Signal()), int32(status.Signal())
		}
		return int32(status.ExitStatus()), 0
	}
}

// killOrphans ends whatever the command has left: as in a container, nothing outlives it. Killing
// one hands its children to the keeper, so it looks again until there is none.
func killOrphans() {
	for {
		left := childrenOf(os.Getpid())
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

func childrenOf(parent int) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid: a name may hold anything, also brackets.
		rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(rest) > 1 && rest[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, pid)
		}
	}
	return found
}

// writeJSON writes a file that is there whole or not at all, also after a power failure.
func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}

var home = sync.OnceValue(func() string {
	if found, err := os.UserHomeDir(); err == nil {
		return found
	}
	return "/"
})
