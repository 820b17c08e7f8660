package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	heir = "--payload-fd"

	prSetDumpable       = 4
	prSetChildSubreaper = 36
	prSetNoNewPrivs     = 38
)

// memfdCreate is the number of memfd_create, which package syscall does not know.
var memfdCreate = map[string]uintptr{"amd64": 319, "arm64": 279}[runtime.GOARCH]

func prctl(option, value uintptr) error {
	if _, _, number := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); number != 0 {
		return number
	}
	return nil
}

// harden makes this process's memory, environment and descriptors unreadable to every process
// without CAP_SYS_PTRACE, those of its own user included.
func harden() error { return prctl(prSetDumpable, 0) }

// take fetches the payload's text. Where that is in the environment the helper starts itself anew
// without it: what the kernel shows as a process's environment is what it was started with.
func take(call call) ([]byte, error) {
	if call.fd != "" {
		return inherited(call.fd)
	}
	pieces, rest := piecesIn(os.Environ())
	if call.file != "" {
		found, err := piecesOf(call.file)
		if err != nil {
			return nil, err
		}
		pieces = found
	}
	text, err := join(pieces)
	if err != nil {
		return nil, err
	}
	if call.file != "" {
		// Where it may not be removed, who can read it is for whoever put it there.
		_ = os.Remove(call.file)
	}
	if len(rest) == len(os.Environ()) {
		return text, nil
	}
	return nil, again(text, rest)
}

// again starts this program in this very process, with the payload in a file that has no name.
func again(text []byte, environment []string) error {
	fd, err := memfd(text)
	if err != nil {
		return fail(exitHelper, "cannot keep the payload in memory: %v", err)
	}
	arguments := []string{os.Args[0], os.Args[1], heir, strconv.Itoa(fd)}
	for at := 2; at < len(os.Args); at++ {
		if os.Args[at] == "--payload" {
			at++
			continue
		}
		arguments = append(arguments, os.Args[at:]...)
		break
	}
	return fail(exitHelper, "cannot start itself anew: %v", syscall.Exec("/proc/self/exe", arguments, environment))
}

func memfd(text []byte) (int, error) {
	name, err := syscall.BytePtrFromString("payload")
	if err != nil {
		return 0, err
	}
	fd, _, number := syscall.Syscall(memfdCreate, uintptr(unsafe.Pointer(name)), 0, 0)
	if number != 0 {
		return 0, number
	}
	for left := text; len(left) > 0; {
		count, err := syscall.Write(int(fd), left)
		if err != nil {
			return 0, err
		}
		left = left[count:]
	}
	_, err = syscall.Seek(int(fd), 0, 0)
	return int(fd), err
}

func inherited(number string) ([]byte, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, fail(exitUsage, "%s: %q", heir, number)
	}
	file := os.NewFile(uintptr(fd), "payload")
	defer file.Close()
	var text strings.Builder
	if _, err := file.WriteTo(&text); err != nil {
		return nil, fail(exitPayload, "the payload cannot be read: %v", err)
	}
	return []byte(text.String()), nil
}
