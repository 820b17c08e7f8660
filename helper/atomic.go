package main

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A volume is laid out as the kubelet does it (pkg/volume/util/atomic_writer.go): the files are in
// a folder of this content alone, `..data` is a link to that, and what stands in the volume itself
// are links through `..data`. A rename(2) of `..data` replaces all of it at once.

const (
	dataLink = "..data"
	dataNext = "..data_tmp"
)

func placeAtOnce(root *os.Root, tree Tree, mode fs.FileMode) error {
	if err := switchTo(root, tree, mode); err != nil {
		var known *failure
		if errors.As(err, &known) {
			return err
		}
		return fail(exitHelper, "cannot fill %s: %s", tree.Root, reasonOf(err))
	}
	return nil
}

func switchTo(root *os.Root, tree Tree, mode fs.FileMode) error {
	before := contentOf(root)
	fresh := ".." + rand.Text()
	err := folders(root, tree, fresh, mode)
	if err == nil {
		err = fill(root, tree, fresh, mode)
	}
	if err == nil {
		err = pointTo(root, fresh)
	}
	if err != nil {
		_ = root.RemoveAll(fresh)
		return err
	}
	if err := linkAll(root, tree); err != nil {
		return err
	}
	if before != "" {
		return root.RemoveAll(before)
	}
	return nil
}

// contentOf is the folder that a volume shows now; empty where it is none of ours.
func contentOf(root *os.Root) string {
	name, err := root.Readlink(dataLink)
	if err != nil || !strings.HasPrefix(name, "..") || name == ".." || strings.Contains(name, "/") || name == dataLink {
		return ""
	}
	return name
}

func fill(root *os.Root, tree Tree, folder string, mode fs.FileMode) error {
	inside, err := root.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer inside.Close()
	return placeAll(inside, tree, mode)
}

// pointTo has the volume show that folder from now on.
func pointTo(root *os.Root, folder string) error {
	if err := root.RemoveAll(dataNext); err != nil {
		return err
	}
	if err := root.Symlink(folder, dataNext); err != nil {
		return err
	}
	if info, err := root.Lstat(dataLink); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		if err := root.RemoveAll(dataLink); err != nil {
			return err
		}
	}
	return root.Rename(dataNext, dataLink)
}

// linkAll makes what stands in the volume itself: a link for each first name, and no other of ours.
func linkAll(root *os.Root, tree Tree) error {
	wanted := map[string]bool{}
	for _, one := range tree.Files {
		first, _, _ := strings.Cut(one.Path, "/")
		wanted[first] = true
	}
	for name := range wanted {
		target := path.Join(dataLink, name)
		if found, err := root.Readlink(name); err == nil && found == target {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, one := range entries {
		target, err := root.Readlink(one.Name())
		if err == nil && !wanted[one.Name()] && target == path.Join(dataLink, one.Name()) {
			if err := root.Remove(one.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
