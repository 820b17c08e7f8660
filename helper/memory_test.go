package main

import (
	"os"
	"slices"
	"testing"
)

func TestOnlyPagesThatAFileStillHasAreGivenBack(t *testing.T) {
	maps := `00400000-00757000 r-xp 00000000 08:01 1234                               /podbridge/helper
Size:               3420 kB
Rss:                3200 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00757000-00b00000 r--p 00357000 08:01 1234                               /podbridge/helper (deleted)
Anonymous:             0 kB
00b00000-00b40000 r--p 00700000 08:01 1234                               /podbridge/helper
Anonymous:             4 kB
00b40000-00b50000 rw-p 00740000 08:01 1234                               /podbridge/helper
Anonymous:             0 kB
00b50000-02b00000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
cut`
	if found := filePages(maps); !slices.Equal(found, [][2]uintptr{{0x400000, 0x357000}, {0x757000, 0x3a9000}}) {
		t.Errorf("%x", found)
	}
}

func TestTheProgramGoesOnWithoutItsPages(t *testing.T) {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil || len(filePages(string(maps))) == 0 {
		t.Fatalf("%v, %s", err, maps)
	}
	for range 3 {
		giveBack()
	}
}
