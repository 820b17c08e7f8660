package main

import (
	"os"
	"testing"
	"time"
)

func TestWhatWasWrittenIsWaitedForUntilItIsTaken(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if _, err := write.WriteString("words"); err != nil {
		t.Fatal(err)
	}
	descriptor := int(write.Fd())
	if count := lying(descriptor); count != 5 {
		t.Errorf("%d bytes", count)
	}
	done := make(chan struct{})
	go func() { taken(descriptor); close(done) }()
	select {
	case <-done:
		t.Error("nobody has taken it")
	case <-time.After(stamping * 2):
	}
	if _, err := read.Read(make([]byte, 99)); err != nil {
		t.Fatal(err)
	}
	<-done
	if count := lying(descriptor); count != 0 {
		t.Errorf("%d bytes", count)
	}
}

func TestWhoNeverReadsIsNotWaitedForForEver(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if _, err := write.WriteString("words"); err != nil {
		t.Fatal(err)
	}
	taken(int(write.Fd()))
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if count := lying(int(file.Fd())); count != 0 {
		t.Errorf("%d bytes of a file", count)
	}
}
