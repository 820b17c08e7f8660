package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	leanFirst   = 200 * time.Millisecond // until a helper has its payload and, most of the time, its provider
	leanLongest = time.Minute
)

// stayLean gives memory back when the helper has begun, and then now and again, ever less often: it
// waits beside the pod's own work, for days perhaps.
func stayLean() {
	go func() {
		for wait := leanFirst; ; wait = min(2*wait, leanLongest) {
			time.Sleep(wait)
			giveBack()
		}
	}()
}

// giveBack returns to the kernel what is not in use: the heap's, and the pages of the program, which
// come back from its file where they are used again.
func giveBack() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, one := range filePages(string(maps)) {
		_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, one[0], one[1], syscall.MADV_DONTNEED)
	}
}

// filePages are the mappings, by address and length, that are of a file, cannot be written to, and
// have no page that is another than the file's. `maps` is /proc/self/smaps.
func filePages(maps string) [][2]uintptr {
	var found [][2]uintptr
	var from, to uint64
	for _, line := range strings.Split(maps, "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 6 && strings.Contains(fields[0], "-") {
			first, last, _ := strings.Cut(fields[0], "-")
			from, to = 0, 0
			if fields[4] != "0" && strings.HasPrefix(fields[1], "r-") {
				from, _ = strconv.ParseUint(first, 16, 64)
				to, _ = strconv.ParseUint(last, 16, 64)
			}
		} else if len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && 0 < from && from < to {
			found = append(found, [2]uintptr{uintptr(from), uintptr(to - from)})
		}
	}
	return found
}
