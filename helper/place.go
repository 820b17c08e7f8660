package main

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// place writes a tree's files. Nothing is written outside of its root, whatever links are in it.
func place(tree Tree) error {
	mode := fs.FileMode(tree.FolderMode)
	if mode == 0 {
		mode = 0o755
	}
	if err := os.MkdirAll(tree.Root, 0o755); err != nil {
		return fail(exitHelper, "cannot make a volume's folder: %s", plain(err))
	}
	root, err := os.OpenRoot(tree.Root)
	if err != nil {
		return fail(exitHelper, "cannot open a volume: %s", plain(err))
	}
	defer root.Close()
	if tree.Atomic {
		return placeAtOnce(root, tree, mode)
	}
	return placeAll(root, tree, mode)
}

func placeAll(root *os.Root, tree Tree, mode fs.FileMode) error {
	if len(tree.Files) == 0 {
		if err := open(root, tree, mode); err != nil {
			return fail(exitHelper, "cannot open %s to all users: %s", tree.Root, reasonOf(err))
		}
	}
	for _, one := range tree.Files {
		if err := folders(root, tree, path.Dir(one.Path), mode); err != nil {
			return fail(exitHelper, "cannot make the folder of %s: %s", path.Join(tree.Root, one.Path), reasonOf(err))
		}
		if err := write(root, tree, one); err != nil {
			return fail(exitHelper, "cannot write %s: %s", path.Join(tree.Root, one.Path), reasonOf(err))
		}
	}
	return nil
}

// open gives a volume that is empty, and that somebody else has made, its owner and mode.
func open(root *os.Root, tree Tree, mode fs.FileMode) error {
	if err := give(tree, func(user, group int) error { return root.Chown(".", user, group) }); err != nil {
		return err
	}
	return root.Chmod(".", modeOf(uint32(mode)))
}

// folders makes what is missing of a path, each folder with the tree's mode and owner.
func folders(root *os.Root, tree Tree, below string, mode fs.FileMode) error {
	if below == "." {
		return nil
	}
	for at, rune := range below + "/" {
		if rune != '/' {
			continue
		}
		name := below[:at]
		err := root.Mkdir(name, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := give(tree, func(user, group int) error { return root.Lchown(name, user, group) }); err != nil {
			return err
		}
		// After the owner, because a change of owner takes bits back.
		if err := root.Chmod(name, modeOf(uint32(mode))); err != nil {
			return err
		}
	}
	return nil
}

func write(root *os.Root, tree Tree, one File) error {
	err := root.Remove(one.Path)
	if errors.Is(err, syscall.EBUSY) {
		// To write into it would change what others see of it as well.
		return errors.New("a file that is mounted there is in the way")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(one.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(one.Content)
	if err == nil {
		err = give(tree, file.Chown)
	}
	if err == nil {
		err = file.Chmod(modeOf(one.Mode))
	}
	if also := file.Close(); err == nil {
		err = also
	}
	return err
}

// give has the tree's owner set, where it has one.
func give(tree Tree, chown func(user, group int) error) error {
	user, group := -1, -1
	if tree.User != nil && int(*tree.User) != os.Geteuid() {
		user = int(*tree.User)
	}
	if tree.Group != nil && int(*tree.Group) != os.Getegid() {
		group = int(*tree.Group)
	}
	if user == -1 && group == -1 {
		return nil
	}
	return chown(user, group)
}

// modeOf is a Unix mode as Go has it, the bits above rwxrwxrwx included.
func modeOf(mode uint32) fs.FileMode {
	made := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			made |= flag
		}
	}
	return made
}

// reasonOf is an error's cause alone: "no space left on device".
func reasonOf(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return strings.ToLower(err.Error())
		}
		err = next
	}
}
