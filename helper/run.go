package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	whySignal   = "signal"    // the cloud asked for the end
	whyDeadline = "deadline"  // the pod's
	whyHardStop = "hard stop" // what bounds the bill
	whyOver     = "over"      // the pod's own work has ended

	reasonDeadline  = "DeadlineExceeded"
	messageDeadline = "Pod was active on the node longer than the specified deadline"
	reasonPeer      = "PeerMissing"

	afterwards  = 5.0             // seconds after the last kill in which peers may still tell their ends
	extinction  = 2 * time.Second // how long processes that were killed may take to die
	drainage    = 2 * time.Second // how long a stranger may hold a container's output
	exitForcing = 128             // and the signal's number: a code for who answers the hard stop with 0
)

// order is an order to end: from `at` the container ends, at `killAt` it is killed.
type order struct {
	at, killAt float64
	why        string
}

// kill is an order to end one run, though the pod goes on.
type kill struct {
	grace float64
	again bool // it then starts anew, whatever its policy makes of its code
}

// attempt is one run of the container.
type attempt struct {
	number   int
	pid      int
	began    float64
	end      <-chan syscall.WaitStatus
	streams  *streams
	oomKills int
	previous *Exit
	ctx      context.Context
	cancel   context.CancelFunc
	hooked   bool // its post-start hook has ended well, or there is none
	passed   bool // its startup probe as well
	ready    bool
	kill     *kill
	ending   *ending
	over     chan struct{} // closed at its end, all that it wrote included
	code     int           // of its end
}

// ending is how far the end of a run has come.
type ending struct {
	killAt float64
	hooked bool // its pre-stop hook has ended, or there is none
	asked  bool // its stop signal was sent
}

type phase int

const (
	gated   phase = iota // waits for those before it
	working              // runs
	resting              // waits for its back-off
	leaving              // is over, and waits for the others
)

// supervisor is `run`. Everything but the probes and hooks happens in one loop: it looks at all
// there is, does what is due, and waits until something changes.
type supervisor struct {
	payload *Payload
	pod     *Pod
	one     *Container
	argv    []string
	board   *board
	tunnel  *tunnel
	family  *family
	shell   *shell
	actor   *actor
	note    *note
	began   float64
	broken  string // why it cannot be started, ever

	phase   phase
	stop    *order
	asked   bool // the cloud has asked for the end
	current *attempt
	state   State
	notices []Notice
	// Which outputs of the last run did not end with a line's end, as far as is known.
	unfinished map[string]bool
	due        float64 // when its back-off is over
	wake       float64
	signals    chan os.Signal
	events     chan func()
	left       chan struct{} // closed when nothing happens in the loop any more
	code       int
}

var started = time.Now()

// The wall clock as it stood when the helper started, and as much later: nobody sets it meanwhile, so
// that a grace lasts as long as it was given.
func now() float64 {
	return float64(started.UnixNano())/1e9 + time.Since(started).Seconds()
}

func run(payload *Payload, command []string) (int, error) {
	one := payload.Container
	argv := one.Argv
	if len(argv) > 0 && len(command) > 0 {
		return 0, fail(exitUsage, "a command is in the payload and after --")
	}
	if len(argv) == 0 {
		argv = command
	}
	made := &supervisor{
		payload: payload, pod: &payload.Pod, one: one, argv: argv, began: now(),
		signals: make(chan os.Signal, 64), events: make(chan func()), left: make(chan struct{}),
	}
	// All but what is of no meaning to pass on, and the ends of children.
	signal.Notify(made.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGALRM)
	// A reader of the output that has gone is an error of a write, not the helper's end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var err error
	if made.board, err = newBoard(payload, one.Name); err != nil {
		return 0, err
	}
	if made.resume() {
		return made.code, nil
	}
	made.state = State{State: waiting, Reason: made.defaultReason()}
	if err = made.board.publish(made.state); err != nil {
		return 0, err
	}
	if made.family, err = newFamily(one.NoNewPrivileges); err != nil {
		return 0, err
	}
	if err = made.prepare(); err != nil {
		made.broken = err.Error()
	}
	if made.tunnel, err = newTunnel(payload.Tunnel, made.offer()); err != nil {
		return 0, err
	}
	made.tellStates(false)
	made.tunnel.open()
	return made.loop(), nil
}

// resume looks at what an earlier helper of this very container has left; true where that began a
// run. It is not begun twice, whoever started this container anew: its end is what is known of it.
func (s *supervisor) resume() bool {
	old, err := s.board.read(s.one.Name)
	if err != nil {
		return false
	}
	s.board.last = old.Sequence
	if old.State == waiting {
		s.code = exitNotBegun
		return old.Final
	}
	if !old.Final {
		if old.State == running {
			old.Exit = &Exit{
				Code: 137, Reason: reasonUnknown, StartedAt: old.Since, FinishedAt: now(),
				Message: "its helper was ended, and a container is not begun twice",
			}
		}
		old.State, old.Final, old.Since = ended, true, nil
		s.state = old
		s.publish()
	}
	s.code = old.Exit.Code
	return true
}

// prepare does once what a container needs before it starts.
func (s *supervisor) prepare() error {
	s.one.fillIn(ownAddresses())
	shell, err := newShell(s.family, s.one)
	if err != nil {
		return err
	}
	for _, tree := range s.payload.Trees {
		if err := place(tree); err != nil {
			return err
		}
	}
	if err := shell.enter(); err != nil {
		return err
	}
	s.shell, s.actor = shell, newActor(shell, s.one.Address)
	s.note = newNote(s.one.MessagePath, shell.credential)
	return nil
}

func (s *supervisor) defaultReason() string {
	if len(s.board.peers(roleInit))+len(s.board.peers(roleSidecar)) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

func (s *supervisor) loop() int {
	timer := time.NewTimer(0)
	for {
		s.board.look()
		s.wake = 0
		if s.step(now()) {
			return s.leave()
		}
		if s.wake > 0 {
			timer.Reset(max(0, seconds(s.wake-now())))
		}
		var end <-chan syscall.WaitStatus
		if s.current != nil {
			end = s.current.end
		}
		select {
		case <-s.board.changed:
		case number := <-s.signals:
			s.hear(number.(syscall.Signal))
		case status := <-end:
			s.ended(status)
		case work := <-s.events:
			work()
		case <-timer.C:
		}
	}
}

// wakeAt has the loop go round at that time at the latest.
func (s *supervisor) wakeAt(at float64) {
	if !math.IsInf(at, 1) && (s.wake == 0 || at < s.wake) {
		s.wake = at
	}
}

func (s *supervisor) publish() {
	s.state.Notices = s.notices
	if err := s.board.publish(s.state); err != nil {
		// The work goes on; who waits for it sees at least that it has ended.
		fmt.Fprintf(os.Stderr, "podbridge-helper: %v\n", err)
	}
	s.tellStates(s.state.Final)
}

// tellStates tells the provider how this container is, where no watcher tells of the whole pod.
func (s *supervisor) tellStates(over bool) {
	if s.tunnel == nil || !s.one.Record {
		return
	}
	state := s.state
	state.Name = s.one.Name
	made := Record{UID: s.pod.UID, Attempt: s.pod.Attempt, By: "run", At: now(), Containers: []State{state}}
	made.judge()
	s.tunnel.service.tell(made, over)
}

// step does what is due; true when the helper may go.
func (s *supervisor) step(now float64) bool {
	s.orders(now)
	switch s.phase {
	case gated:
		s.gate(now)
	case resting:
		if s.stop != nil {
			s.finish()
		} else if now >= s.due {
			s.start(s.state.Restart+1, s.state.Exit)
		} else {
			s.wakeAt(s.due)
		}
	}
	if s.phase == working {
		s.endWhereDue(now)
	}
	return s.phase == leaving && s.mayLeave(now)
}

// orders takes note of what asks for the end.
func (s *supervisor) orders(now float64) {
	if s.pod.DeadlineAt != nil {
		s.orderAt(now, *s.pod.DeadlineAt, whyDeadline)
	}
	if s.pod.HardStop != nil {
		s.orderAt(now, s.began+*s.pod.HardStop, whyHardStop)
	}
	if stop := s.board.stop; stop != nil {
		s.order(order{stop.At, stop.KillAt, whySignal})
	}
	if s.board.failedInit() != "" {
		s.order(order{now, now + s.pod.Grace, whyOver})
	}
	if s.one.Role == roleSidecar {
		if over := s.board.mainsOver(now, s.patience(now)); over != nil {
			s.order(order{*over, *over + s.pod.Grace, whyOver})
		}
	}
}

func (s *supervisor) orderAt(now, at float64, why string) {
	if at <= now {
		s.order(order{at, at + s.pod.Grace, why})
	} else {
		s.wakeAt(at)
	}
}

// order adds an order: the first names why, the one that kills first holds.
func (s *supervisor) order(more order) {
	if s.stop == nil {
		s.stop = &more
	} else {
		s.stop.killAt = min(s.stop.killAt, more.killAt)
	}
}

// patience says whether a peer that has not come yet may still come.
func (s *supervisor) patience(now float64) bool {
	until := s.began + s.pod.PeerWait
	if now < until {
		s.wakeAt(until)
	}
	return now < until
}

func (s *supervisor) hear(number syscall.Signal) {
	switch {
	case number == syscall.SIGTERM:
		at := now()
		s.asked = true
		s.order(order{at, at + s.pod.Grace, whySignal})
	case s.current != nil:
		s.family.kill(s.current.pid, number, false)
	}
}

// gate starts the container when all before it have got as far as they must.
func (s *supervisor) gate(now float64) {
	if s.stop != nil {
		s.never(s.defaultReason(), "")
		return
	}
	// Asked for in any case: it sees to it that the loop goes round when it is over.
	patience := s.patience(now)
	if goes, why := s.board.admits(Peer{Name: s.one.Name, Role: s.one.Role}, patience, s.pod.PeerWait); why != "" {
		s.never(reasonPeer, why)
	} else if goes {
		s.start(0, nil)
	}
}

// never ends a container that was not started.
func (s *supervisor) never(reason, message string) {
	s.state.Reason, s.state.Message = reason, message
	s.code = exitNotBegun
	if message != "" {
		fmt.Fprintf(os.Stderr, "podbridge-helper: %s\n", message)
	}
	s.finish()
}

// finish says that the container will not run any more.
func (s *supervisor) finish() {
	s.phase = leaving
	s.state.Backoff = 0
	s.state.Final = true
	if s.stop != nil {
		s.state.StopWhy = s.stop.why
	}
	if s.state.Exit != nil {
		s.code = s.state.Exit.Code
	}
	s.publish()
}

func (s *supervisor) start(number int, previous *Exit) {
	at := now()
	made := &attempt{number: number, began: at, previous: previous, over: make(chan struct{})}
	s.phase, s.current = working, made
	if err := s.launch(made); err != nil {
		s.current = nil
		began := at
		s.conclude(made, Exit{Code: exitStart, Reason: "StartError", Message: err.Error(), StartedAt: &began, FinishedAt: now()})
		return
	}
	made.ctx, made.cancel = context.WithCancel(context.Background())
	s.state = State{State: running, Restart: number, Since: &made.began, Previous: previous, Opening: s.one.PostStart != nil}
	if s.one.PostStart == nil {
		made.hooked = true
		s.attend(made)
	} else {
		go func() {
			good := s.actor.hook(made.ctx, *s.one.PostStart)
			s.tell(made, func() {
				if made.hooked = good; good {
					s.state.Opening = false
					s.attend(made)
					s.publish()
					return
				}
				s.notice(true, "FailedPostStartHook", "PostStartHook failed")
				if made.kill == nil {
					made.kill = &kill{grace: s.pod.Grace}
					s.notice(false, "Killing", "FailedPostStartHook")
				}
			})
		}()
	}
	s.publish()
}

// launch starts the container's process. What it says is for people.
func (s *supervisor) launch(made *attempt) error {
	if s.broken != "" {
		return fmt.Errorf("%s", s.broken)
	}
	s.note.empty()
	streams, err := newStreams(s.one, s.tunnel != nil, s.shell)
	if err != nil {
		return err
	}
	made.oomKills, _ = oomKills(cgroups, ownCgroup)
	made.pid, made.end, err = s.shell.start(s.argv, streams.files, s.one.Tty)
	streams.started()
	made.streams = streams
	if err != nil {
		streams.drain(drainage)
	}
	return err
}

const cgroups, ownCgroup = "/sys/fs/cgroup", "/proc/self/cgroup"

// tell has something done in the loop, if that run still is the one.
func (s *supervisor) tell(about *attempt, work func()) {
	select {
	case s.events <- func() {
		if s.current == about {
			work()
		}
	}:
	case <-about.ctx.Done():
	}
}

// attend begins the probes of a run whose post-start hook is over.
func (s *supervisor) attend(one *attempt) {
	if one.passed || s.one.StartupProbe == nil {
		one.passed, s.state.Started = true, true
		s.state.Ready = s.one.ReadinessProbe == nil
		s.probe(one, liveness, s.one.LivenessProbe)
		s.probe(one, readiness, s.one.ReadinessProbe)
	} else {
		s.probe(one, startup, s.one.StartupProbe)
	}
}

func (s *supervisor) probe(one *attempt, kind string, probe *Probe) {
	if probe == nil {
		return
	}
	first := max(0, seconds(one.began+probe.InitialDelay-now()))
	ask := func() outcome { return s.actor.probe(one.ctx, probe) }
	hear := func(found outcome) { s.tell(one, func() { s.answered(one, kind, found) }) }
	go watchProbe(one.ctx, kind, probe, first, ask, hear, func(good bool) {
		s.tell(one, func() { s.told(one, kind, probe, good) })
	})
}

func (s *supervisor) told(one *attempt, kind string, probe *Probe, good bool) {
	switch {
	case kind == readiness && s.state.Ready != good:
		s.state.Ready = good
		s.publish()
	case kind == startup && good:
		one.passed = true
		s.attend(one)
		s.publish()
	case kind != readiness && !good && one.kill == nil && one.ending == nil:
		grace := s.pod.Grace
		if probe.Grace != nil {
			grace = *probe.Grace
		}
		one.kill = &kill{grace, s.one.RestartPolicy != "Never"}
		s.notice(false, "Killing", killWords(s.one, kind))
	}
}

// conclude decides what follows an end.
func (s *supervisor) conclude(one *attempt, exit Exit) {
	s.state = State{State: ended, Restart: one.number, Exit: &exit, Previous: one.previous}
	again := one.kill != nil && one.kill.again
	if s.stop != nil || !(again || shouldRestart(s.one.Role, s.one.RestartPolicy, s.one.RestartRules, exit)) {
		s.finish()
		return
	}
	delay := s.one.Backoff.delay(one.number, exit, one.previous)
	if one.kill != nil {
		delay = s.one.Backoff.delayOfKilled(one.number, exit, one.previous)
	}
	s.state.Backoff = delay
	s.due = exit.FinishedAt + delay
	s.phase = resting
	s.publish()
	s.divide(one.number + 1)
}
