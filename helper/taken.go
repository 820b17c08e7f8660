package main

import (
	"syscall"
	"time"
	"unsafe"
)

const (
	taking   = time.Second           // that a log's reader may take for what lies in its pipe
	stamping = 50 * time.Millisecond // and then for putting a time to it
)

// taken waits until who keeps the log has taken what was written to these descriptors, where those
// are pipes. A cloud keeps one log of all runs: by its times they are told apart.
func taken(descriptors ...int) {
	until := time.Now().Add(taking)
	for _, one := range descriptors {
		for lying(one) > 0 && time.Now().Before(until) {
			time.Sleep(time.Millisecond)
		}
	}
	time.Sleep(stamping)
}

// lying is how many bytes nobody has read of a pipe; 0 of anything else.
func lying(descriptor int) int {
	var about syscall.Stat_t
	if err := syscall.Fstat(descriptor, &about); err != nil || about.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return 0
	}
	var count int32
	_, _, number := syscall.Syscall(syscall.SYS_IOCTL, uintptr(descriptor), syscall.TIOCINQ, uintptr(unsafe.Pointer(&count)))
	if number != 0 {
		return 0
	}
	return int(count)
}
