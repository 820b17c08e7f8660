package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills is how many processes of this container's control group the kernel has killed for want
// of memory; false where that cannot be known. `mounts` is /sys/fs/cgroup, `own` /proc/self/cgroup.
func oomKills(mounts, own string) (int, bool) {
	data, _ := os.ReadFile(own)
	unified, memory := "/", "/"
	for _, line := range strings.Split(string(data), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[1] == "" {
			unified = parts[2]
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if controller == "memory" {
				memory = parts[2]
			}
		}
	}
	// In a namespace of its own a group is the root of what is mounted, whatever its path says.
	for _, file := range []string{
		filepath.Join(mounts, unified, "memory.events"),
		filepath.Join(mounts, "memory.events"),
		filepath.Join(mounts, "memory", memory, "memory.oom_control"),
		filepath.Join(mounts, "memory", "memory.oom_control"),
	} {
		if count, known := counter(file, "oom_kill"); known {
			return count, true
		}
	}
	return 0, false
}

func counter(file, name string) (int, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			count, err := strconv.Atoi(fields[1])
			return count, err == nil
		}
	}
	return 0, false
}
