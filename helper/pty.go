package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// openTerminal makes a pseudo-terminal: the helper's end of it and the processes'.
func openTerminal(owner *syscall.Credential) (ours, theirs *os.File, err error) {
	ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, errors.New("terminal: " + plain(err))
	}
	var number, unlocked int32
	err = control(ours, syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	if err == nil {
		err = control(ours, syscall.TIOCGPTN, unsafe.Pointer(&number))
	}
	if err == nil {
		theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		ours.Close()
		return nil, nil, errors.New("terminal: " + plain(err))
	}
	if owner != nil {
		// So that a process may open its terminal by name.
		_ = theirs.Chown(int(owner.Uid), -1)
	}
	return ours, theirs, nil
}

func control(file *os.File, request uintptr, argument unsafe.Pointer) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var number syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, number = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument))
	})
	if err == nil && number != 0 {
		err = number
	}
	return err
}

// setSize says how large a terminal is, in characters.
func setSize(terminal *os.File, width, height uint16) {
	size := [4]uint16{height, width}
	_ = control(terminal, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
}

// atEnd makes the end of a terminal's last process what the end of a pipe is.
func atEnd(err error) error {
	if errors.Is(err, syscall.EIO) {
		return io.EOF
	}
	return err
}
