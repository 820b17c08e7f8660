package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

const (
	taking   = time.Second           // that a log's reader may take for what lies in its pipe
	room     = 32 << 10              // bytes in a pipe beside which a line has a place for sure
	stamping = 50 * time.Millisecond // and then for putting a time to it
)

// runMarker begins the line that divides two runs in the log that a cloud keeps for both.
const runMarker = "podbridge-run/1"

// runMark is the line before run `number`. The pod's key seals it: a container cannot have written it.
func runMark(payload *Payload, number int) string {
	seal := hmac.New(sha256.New, payload.Key)
	fmt.Fprintf(seal, "podbridge run %d\n%s\n%d\n%s\n%d\n", version, payload.Pod.UID, payload.Pod.Attempt, payload.Container.Name, number)
	return fmt.Sprintf("%s %d %s\n", runMarker, number, hex.EncodeToString(seal.Sum(nil)[:16]))
}

// divide marks in both outputs that a run has ended and another will begin: behind all of the one
// and before all of the other, whoever reads them both. A pipe that nobody empties gets no mark: the
// helper must not wait for its room.
func (s *supervisor) divide(number int) {
	taken(syscall.Stdout, syscall.Stderr)
	for name, descriptor := range map[string]int{outName: syscall.Stdout, errName: syscall.Stderr} {
		if lying(descriptor) > room {
			continue
		}
		line := runMark(s.payload, number)
		if s.unfinished[name] {
			line = "\n" + line
		}
		_, _ = syscall.Write(descriptor, []byte(line))
	}
	taken(syscall.Stdout, syscall.Stderr)
}

// taken waits until who keeps the log has taken what was written to these descriptors, where those
// are pipes.
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
