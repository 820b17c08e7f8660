package main

import (
	"bufio"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// shell is how processes of a container are started: its user, folder and environment.
type shell struct {
	family     *family
	env        []string
	folder     string
	credential *syscall.Credential
	null       *os.File
}

// account is what /etc/passwd and /etc/group of the image say of a user.
type account struct {
	group  uint32
	home   string
	groups []uint32
}

// accountOf reads the image's own files; a user that they do not know has group 0 and home "/".
func accountOf(user uint32, passwd, group string) account {
	found, name := account{home: "/"}, ""
	eachLine(passwd, func(fields []string) bool {
		if len(fields) < 7 || fields[2] != strconv.Itoa(int(user)) {
			return true
		}
		name, found.home = fields[0], fields[5]
		found.group = number(fields[3])
		return false
	})
	if name != "" {
		eachLine(group, func(fields []string) bool {
			if len(fields) >= 4 && slices.Contains(strings.Split(fields[3], ","), name) {
				found.groups = append(found.groups, number(fields[2]))
			}
			return true
		})
	}
	return found
}

func number(text string) uint32 {
	made, _ := strconv.ParseUint(text, 10, 32)
	return uint32(made)
}

func eachLine(file string, use func(fields []string) bool) {
	opened, err := os.Open(file)
	if err != nil {
		return
	}
	defer opened.Close()
	for lines := bufio.NewScanner(opened); lines.Scan(); {
		if !use(strings.Split(lines.Text(), ":")) {
			return
		}
	}
}

const passwdFile, groupFile = "/etc/passwd", "/etc/group"

// credentialOf is whom a container's processes run as; nil: as the helper, which may not change it.
func credentialOf(one *Container) (*syscall.Credential, error) {
	user, group := uint32(os.Geteuid()), uint32(os.Getegid())
	made := &syscall.Credential{Uid: user, Gid: group, NoSetGroups: true}
	if one.User != nil && *one.User != user {
		known := accountOf(*one.User, passwdFile, groupFile)
		made = &syscall.Credential{Uid: *one.User, Gid: known.group, Groups: known.groups}
	}
	if one.Group != nil {
		made.Gid = *one.Group
	}
	var missing []uint32
	have, _ := os.Getgroups()
	for _, wanted := range one.Groups {
		if made.NoSetGroups && wanted != group && !slices.Contains(have, int(wanted)) {
			missing = append(missing, wanted)
		} else if !made.NoSetGroups && !slices.Contains(made.Groups, wanted) {
			made.Groups = append(made.Groups, wanted)
		}
	}
	if len(missing) > 0 {
		for _, one := range have {
			made.Groups = append(made.Groups, uint32(one))
		}
		made.Groups, made.NoSetGroups = append(made.Groups, missing...), false
	}
	if made.Uid == user && made.Gid == group && made.NoSetGroups {
		return nil, nil
	}
	if user != 0 {
		return nil, fail(exitStart, "cannot run as user %d, group %d: the helper runs as user %d, not as root", made.Uid, made.Gid, user)
	}
	return made, nil
}

const terminalKind = "xterm" // TERM, where the pod names none

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environmentOf is what a container's processes get: the image's and the cloud's own variables,
// which the helper was started with, and the pod's over them.
func environmentOf(own []string, pod [][]string, home string) []string {
	values, order := map[string]string{}, []string{}
	set := func(name, value string) {
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, one := range own {
		if name, value, found := strings.Cut(one, "="); found && name != "" && !strings.HasPrefix(name, variable) {
			set(name, value)
		}
	}
	if home != "" {
		set("HOME", home)
	}
	for _, pair := range pod {
		set(pair[0], pair[1])
	}
	if _, known := values["PATH"]; !known {
		set("PATH", defaultPath)
	}
	made := make([]string, 0, len(order))
	for _, name := range order {
		made = append(made, name+"="+values[name])
	}
	return made
}

// homeOf is the HOME that a change of user brings; empty: it stays. A runtime sets HOME for the
// user that it starts, so one that is not that user's was asked for by the image.
func homeOf(credential *syscall.Credential, own string) string {
	if credential == nil || int(credential.Uid) == os.Geteuid() {
		return ""
	}
	if own != "" && own != accountOf(uint32(os.Geteuid()), passwdFile, groupFile).home {
		return ""
	}
	return accountOf(credential.Uid, passwdFile, groupFile).home
}

func newShell(family *family, one *Container) (*shell, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fail(exitHelper, "cannot open /dev/null: %v", err)
	}
	made := &shell{family: family, null: null, folder: one.WorkingDir}
	if made.folder == "" {
		if made.folder, err = os.Getwd(); err != nil {
			made.folder = "/"
		}
	}
	if made.credential, err = credentialOf(one); err != nil {
		return nil, err
	}
	pod := one.Env
	if one.Tty {
		pod = append([][]string{{"TERM", terminalKind}}, pod...)
	}
	made.env = environmentOf(os.Environ(), pod, homeOf(made.credential, os.Getenv("HOME")))
	return made, nil
}

// enter makes the working directory where it is missing, as runtimes do, and looks at it.
func (s *shell) enter() error {
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return errors.New("workingDir " + strconv.Quote(s.folder) + ": " + reasonOf(err))
	}
	return nil
}

// start runs a command in a session of its own, whose terminal its first stream is where it has one.
// Errors are for people, and name no variable's value.
func (s *shell) start(argv []string, files [3]*os.File, terminal bool) (int, <-chan syscall.WaitStatus, error) {
	if len(argv) == 0 || argv[0] == "" {
		return 0, nil, errors.New("exec: there is no command")
	}
	how := &syscall.ProcAttr{
		Dir: s.folder, Env: s.env, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: terminal, Credential: s.credential, Pdeathsig: syscall.SIGKILL},
	}
	if terminal && !slices.ContainsFunc(s.env, func(one string) bool { return strings.HasPrefix(one, "TERM=") }) {
		how.Env = append(slices.Clone(s.env), "TERM="+terminalKind)
	}
	name, denied := argv[0], false
	for _, place := range s.places(name) {
		// What is not there is told from a folder that may not be entered.
		if info, err := os.Stat(place); err == nil && info.IsDir() {
			denied = true
			continue
		} else if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		pid, end, err := s.family.start(place, argv, how)
		switch {
		case err == nil:
			return pid, end, nil
		case errors.Is(err, syscall.EACCES):
			denied = true
		case errors.Is(err, syscall.ENOENT):
			// The file is there: what it names in its first line, or its loader, is not.
			return 0, nil, errors.New("exec: " + strconv.Quote(name) + ": no such file or directory")
		default:
			return 0, nil, errors.New("exec: " + strconv.Quote(name) + ": " + reasonOf(err))
		}
	}
	switch {
	case denied:
		return 0, nil, errors.New("exec: " + strconv.Quote(name) + ": permission denied")
	case strings.Contains(name, "/"):
		return 0, nil, errors.New("exec: " + strconv.Quote(name) + ": no such file or directory")
	}
	return 0, nil, errors.New("exec: " + strconv.Quote(name) + ": executable file not found in $PATH")
}

func (s *shell) places(name string) []string {
	if strings.Contains(name, "/") {
		return []string{s.absolute(name)}
	}
	var found []string
	for _, one := range s.env {
		if value, is := strings.CutPrefix(one, "PATH="); is {
			for _, folder := range filepath.SplitList(value) {
				if folder != "" {
					found = append(found, s.absolute(path.Join(folder, name)))
				}
			}
		}
	}
	return found
}

func (s *shell) absolute(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(s.folder, name)
}
