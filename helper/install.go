package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// install writes the pod's files and then the helper itself: where the helper is, the files are.
func install(payload *Payload) error {
	for _, tree := range payload.Trees {
		if err := place(tree); err != nil {
			return err
		}
	}
	if err := openBoard(payload.Folder); err != nil {
		return err
	}
	if err := copySelf(payload.Program); err != nil {
		return err
	}
	if err := closeFolder(payload.Program); err != nil {
		return err
	}
	return closeFolder(payload.Folder)
}

// closeFolder keeps everybody but its owner from putting something else in the place of what is
// directly in it: a cloud may have opened the folder to all. Root could; for the helper's program
// the others' mounts are read-only.
func closeFolder(folder string) error {
	err := os.Chmod(folder, 0o755)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return fail(exitHelper, "cannot close %s: %s", folder, reasonOf(err))
	}
	return nil
}

func copySelf(folder string) error {
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		return fail(exitHelper, "cannot read itself: %s", plain(err))
	}
	defer source.Close()
	target, err := os.CreateTemp(folder, ".helper-*")
	if err != nil {
		return fail(exitHelper, "cannot install itself: %s", plain(err))
	}
	defer os.Remove(target.Name())
	_, err = io.Copy(target, source)
	if err == nil {
		err = target.Chmod(0o755)
	}
	if also := target.Close(); err == nil {
		err = also
	}
	if err == nil {
		err = os.Rename(target.Name(), filepath.Join(folder, "helper"))
	}
	if err != nil {
		return fail(exitHelper, "cannot install itself in %s: %s", folder, reasonOf(err))
	}
	return nil
}
