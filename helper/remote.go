package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const reaching = 10 * time.Second // that a port of the pod may take to answer

// offer makes what the provider may ask of `run`.
func (s *supervisor) offer() *service {
	who := introduction{Role: "run", Container: s.one.Name, States: s.one.Record}
	made := newService(who, func(ctx context.Context, grace float64) error {
		return s.within(ctx, func() error {
			at := now()
			s.order(order{at, at + grace, whySignal})
			return nil
		})
	})
	made.mux.HandleFunc("POST /exec", func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Command []string `json:"command"`
			Stdin   bool     `json:"stdin"`
			Tty     bool     `json:"tty"`
		}
		if understood(w, r, longestAsk, &asked) {
			made.sessions.hold(w, r, func() (*session, error) {
				return s.exec(r.Context(), asked.Command, asked.Stdin, asked.Tty)
			})
		}
	})
	made.mux.HandleFunc("POST /attach", func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Stdin bool `json:"stdin"`
		}
		if understood(w, r, longestAsk, &asked) {
			made.sessions.hold(w, r, func() (*session, error) { return s.attach(r.Context(), asked.Stdin) })
		}
	})
	made.mux.HandleFunc("POST /dial", func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Port   uint16 `json:"port"`
			Inside bool   `json:"inside"`
		}
		if understood(w, r, longestAsk, &asked) {
			made.sessions.hold(w, r, func() (*session, error) { return s.dial(r.Context(), asked.Port, asked.Inside) })
		}
	})
	made.mux.HandleFunc("GET /usage", func(w http.ResponseWriter, r *http.Request) {
		var found consumption
		err := s.within(r.Context(), func() error {
			if s.current == nil {
				return errNotRunning
			}
			found = usageOf(cgroups, ownCgroup)
			return nil
		})
		if err != nil {
			answer(w, err)
			return
		}
		say(w, found)
	})
	return made
}

// within has something done in the loop, where everything happens one after another.
func (s *supervisor) within(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	select {
	case s.events <- func() { done <- work() }:
		return <-done
	case <-s.left:
		return errNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec starts a command beside the container's process. It ends with its session, and all of the
// terminal or process group with it.
func (s *supervisor) exec(ctx context.Context, argv []string, stdin, tty bool) (*session, error) {
	streams, err := newCommandStreams(stdin, tty, s.shell)
	if err != nil {
		return nil, err
	}
	var pid int
	var end <-chan syscall.WaitStatus
	err = s.within(ctx, func() error {
		if s.current == nil {
			return errNotRunning
		}
		var failed error
		if pid, end, failed = s.shell.start(argv, streams.files, tty); failed != nil {
			return unprocessable(failed)
		}
		return nil
	})
	streams.started()
	if err != nil {
		streams.close()
		return nil, err
	}
	made := &session{outputs: map[string]io.ReadCloser{}}
	for name, one := range streams.outputs {
		made.outputs[name] = one
	}
	if streams.input != nil {
		made.input = fileInput{streams.input, streams.shutInput}
	}
	if tty {
		made.resize = func(width, height uint16) { setSize(streams.terminal, width, height) }
	}
	made.end = func(ctx context.Context) int {
		var status syscall.WaitStatus
		select {
		case status = <-end:
		case <-ctx.Done():
			s.family.killSession(pid)
			status = <-end
		}
		streams.finish()
		return codeOfStatus(status)
	}
	return made, nil
}

func codeOfStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// commandStreams are those of a command that was asked for.
type commandStreams struct {
	files    [3]*os.File
	outputs  map[string]*draining
	input    *os.File
	terminal *os.File
	null     *os.File
}

func newCommandStreams(stdin, tty bool, shell *shell) (*commandStreams, error) {
	if shell == nil {
		return nil, errNotRunning
	}
	made := &commandStreams{outputs: map[string]*draining{}, null: shell.null}
	made.files[0] = shell.null
	if tty {
		ours, theirs, err := openTerminal(shell.credential)
		if err != nil {
			return nil, unprocessable(err)
		}
		made.files = [3]*os.File{theirs, theirs, theirs}
		made.terminal, made.outputs[outName] = ours, newDraining(ours)
		if stdin {
			made.input = ours
		}
		return made, nil
	}
	for at, name := range []string{outName, errName} {
		read, write, err := os.Pipe()
		if err != nil {
			made.started()
			made.close()
			return nil, err
		}
		lend(write, shell.credential)
		made.files[at+1], made.outputs[name] = write, newDraining(read)
	}
	if stdin {
		read, write, err := os.Pipe()
		if err != nil {
			made.started()
			made.close()
			return nil, err
		}
		lend(read, shell.credential)
		made.files[0], made.input = read, write
	}
	return made, nil
}

// started closes what the command now has.
func (c *commandStreams) started() {
	for _, one := range c.files {
		if one != nil && one != c.null {
			one.Close()
		}
	}
}

// shutInput is the end of the input. A terminal has none: it stays as it is.
func (c *commandStreams) shutInput() {
	if c.terminal == nil {
		c.input.Close()
	}
}

// finish has the outputs end with what lies in them.
func (c *commandStreams) finish() {
	for _, one := range c.outputs {
		one.finish()
	}
	if c.input != nil && c.terminal == nil {
		c.input.Close()
	}
}

func (c *commandStreams) close() {
	for _, one := range c.outputs {
		one.Close()
	}
	if c.input != nil {
		c.input.Close()
	}
}

// attach joins what the container's process writes from now on, and its input.
func (s *supervisor) attach(ctx context.Context, stdin bool) (*session, error) {
	var one *attempt
	var hearer *hearer
	err := s.within(ctx, func() error {
		if s.current == nil {
			return errNotRunning
		}
		one = s.current
		hearer = one.streams.hearers.join()
		return nil
	})
	if err != nil {
		return nil, err
	}
	made := &session{outputs: map[string]io.ReadCloser{}}
	for name := range one.streams.ours {
		made.outputs[name] = heard{hearer, name}
	}
	if stdin && one.streams.input != nil {
		made.input = fileInput{one.streams.input, func() {
			if s.one.StdinOnce && one.streams.terminal == nil {
				one.streams.input.Close()
			}
		}}
	}
	if terminal := one.streams.terminal; terminal != nil {
		made.resize = func(width, height uint16) { setSize(terminal, width, height) }
	}
	made.end = func(ctx context.Context) int {
		select {
		case <-one.over:
			return one.code
		case <-ctx.Done():
			one.streams.hearers.leave(hearer)
			return 0
		}
	}
	return made, nil
}

// dial connects to a port: of the pod's localhost, as port-forward means it, or its address.
func (s *supervisor) dial(ctx context.Context, port uint16, inside bool) (*session, error) {
	err := s.within(ctx, func() error {
		if s.current == nil {
			return errNotRunning
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	places := []string{"127.0.0.1", "::1"}
	if !inside {
		places = []string{s.actor.address}
	}
	dialer := net.Dialer{Timeout: reaching}
	var connection net.Conn
	for _, place := range places {
		connection, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(place, strconv.Itoa(int(port))))
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, &refusal{http.StatusBadGateway, reasonOf(err)}
	}
	both := &joined{TCPConn: connection.(*net.TCPConn), read: make(chan struct{}), written: make(chan struct{})}
	return &session{
		outputs: map[string]io.ReadCloser{outName: both},
		input:   both,
		end: func(ctx context.Context) int {
			defer both.TCPConn.Close()
			for _, one := range []<-chan struct{}{both.read, both.written} {
				select {
				case <-one:
				case <-ctx.Done():
					return 0
				}
			}
			return 0
		},
	}, nil
}

// joined is a connection to a port, whose halves end one by one.
type joined struct {
	*net.TCPConn
	read, written chan struct{}
	once          sync.Once
}

func (j *joined) Read(space []byte) (int, error) {
	count, err := j.TCPConn.Read(space)
	if err != nil {
		j.once.Do(func() { close(j.read) })
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			err = errBroken
		}
	}
	return count, err
}

func (j *joined) feed(from io.Reader, over <-chan struct{}) {
	defer close(j.written)
	if _, err := io.Copy(writerOnly{j.TCPConn}, from); err == nil {
		_ = j.TCPConn.CloseWrite()
	} else {
		j.TCPConn.Close()
	}
}

// writerOnly keeps io.Copy to its own small buffer.
type writerOnly struct{ io.Writer }
