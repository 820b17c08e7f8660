package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// consumption is what a container uses; nil where nobody knows.
type consumption struct {
	CPU    *uint64 `json:"cpu_nanoseconds"`
	Memory *uint64 `json:"memory_bytes"` // without the cached files that the kernel may drop
}

const clockTick = time.Second / 100 // USER_HZ of proc(5), on every machine that this is built for

// usageOf asks the container's control groups. One that has other processes as well is not the
// container's: then what its processes say is added up. `mounts` is /sys/fs/cgroup, `own`
// /proc/self/cgroup.
func usageOf(mounts, own string) consumption {
	var found consumption
	groups := groupsOf(own)
	if folder, is := groupOf(mounts, "", groups[""]); is {
		if micro, known := number64(folder, "cpu.stat", "usage_usec"); known {
			nano := micro * 1000
			found.CPU = &nano
		}
		found.Memory = workingSet(folder, "memory.current", "inactive_file")
	}
	if folder, is := groupOf(mounts, "cpuacct", groups["cpuacct"]); is && found.CPU == nil {
		if nano, known := number64(folder, "cpuacct.usage", ""); known {
			found.CPU = &nano
		}
	}
	if folder, is := groupOf(mounts, "memory", groups["memory"]); is && found.Memory == nil {
		found.Memory = workingSet(folder, "memory.usage_in_bytes", "total_inactive_file")
	}
	if found.CPU == nil || found.Memory == nil {
		nano, memory := ofProcesses(kin())
		if found.CPU == nil {
			found.CPU = &nano
		}
		if found.Memory == nil {
			found.Memory = &memory
		}
	}
	return found
}

// groupsOf are the paths of a process's groups by controller; "" is that of version 2.
func groupsOf(own string) map[string]string {
	data, _ := os.ReadFile(own)
	found := map[string]string{}
	for _, line := range strings.Split(string(data), "\n") {
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 {
			for _, controller := range strings.Split(parts[1], ",") {
				found[controller] = parts[2]
			}
		}
	}
	return found
}

// groupOf is a group's folder, where the group has no process but this one and those below it; the
// first of a namespace has all below it. Processes outside of the namespace are 0.
func groupOf(mounts, controller, path string) (string, bool) {
	// In a namespace of its own a group is the root of what is mounted, whatever its path says.
	for _, folder := range []string{filepath.Join(mounts, controller, path), filepath.Join(mounts, controller)} {
		data, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
		if err != nil {
			continue
		}
		members, mine := strings.Fields(string(data)), kin()
		for _, one := range members {
			pid, _ := strconv.Atoi(one)
			_, lives := parentOf(pid)
			if pid == 0 || lives && !mine[pid] && os.Getpid() != 1 {
				return "", false
			}
		}
		if len(members) > 0 {
			return folder, true
		}
	}
	return "", false
}

// kin are this process and all below it.
func kin() map[int]bool {
	found := map[int]bool{os.Getpid(): true}
	for _, pid := range descendants(os.Getpid()) {
		found[pid] = true
	}
	return found
}

func workingSet(folder, usageFile, inactive string) *uint64 {
	used, known := number64(folder, usageFile, "")
	if !known {
		return nil
	}
	idle, _ := number64(folder, "memory.stat", inactive)
	used -= min(used, idle)
	return &used
}

// number64 is the number of a file, or that behind a name in it.
func number64(folder, file, name string) (uint64, bool) {
	data, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		return 0, false
	}
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if name == "" && len(fields) == 1 || len(fields) == 2 && fields[0] == name {
			found, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
			return found, err == nil
		}
	}
	return 0, false
}

// ofProcesses is what processes and their children that have ended have used, and what is resident.
func ofProcesses(pids map[int]bool) (nano, memory uint64) {
	for pid := range pids {
		fields := statOf(pid)
		if len(fields) < 22 {
			continue
		}
		// utime, stime, cutime, cstime: fields 14 to 17 of proc(5), of which the first here is 3.
		for _, one := range fields[11:15] {
			ticks, _ := strconv.ParseUint(one, 10, 64)
			nano += ticks * uint64(clockTick)
		}
		pages, _ := strconv.ParseUint(fields[21], 10, 64)
		memory += pages * uint64(os.Getpagesize())
	}
	return nano, memory
}
