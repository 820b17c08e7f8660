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
	due     float64 // when its back-off is over
	wake    float64
	signals chan os.Signal
	events  chan func()
	code    int
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

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
		signals: make(chan os.Signal, 64), events: make(chan func()),
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
	return made.loop(), nil
}

// prepare does once what a container needs before it starts.
func (s *supervisor) prepare() error {
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
	if err := s.board.publish(s.state); err != nil {
		// The work goes on; who waits for it sees at least that it has ended.
		fmt.Fprintf(os.Stderr, "podbridge-helper: %v\n", err)
	}
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
	for _, peer := range s.pod.Containers {
		if peer.Name == s.one.Name {
			if s.one.Role != roleMain {
				break
			}
			continue
		}
		if peer.Role == roleMain {
			continue
		}
		state := s.board.seen[peer.Name]
		switch {
		case s.board.lost[peer.Name]:
			s.never(reasonPeer, fmt.Sprintf("the container %s is no more, and left no word of its end", peer.Name))
			return
		case state.Sequence == 0 && !s.patience(now):
			s.never(reasonPeer, fmt.Sprintf("the container %s did not come within %g s", peer.Name, s.pod.PeerWait))
			return
		case state.Final && state.Exit == nil:
			s.never(reasonPeer, fmt.Sprintf("the container %s was not started", peer.Name))
			return
		case peer.Role == roleSidecar && state.Final:
			s.never(reasonPeer, fmt.Sprintf("the container %s has ended", peer.Name))
			return
		case peer.Role == roleSidecar && !(state.State == running && state.Started):
			return
		case peer.Role == roleInit && !(state.Final && state.Exit.Code == 0):
			return
		}
	}
	s.start(0, nil)
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
	made := &attempt{number: number, began: at, previous: previous}
	s.phase, s.current = working, made
	if err := s.launch(made); err != nil {
		s.current = nil
		began := at
		s.conclude(made, Exit{Code: exitStart, Reason: "StartError", Message: err.Error(), StartedAt: &began, FinishedAt: now()})
		return
	}
	made.ctx, made.cancel = context.WithCancel(context.Background())
	s.state = State{State: running, Restart: number, Since: &made.began, Previous: previous}
	if s.one.PostStart == nil {
		made.hooked = true
		s.attend(made)
	} else {
		go func() {
			good := s.actor.hook(made.ctx, *s.one.PostStart)
			s.tell(made, func() {
				if made.hooked = good; good {
					s.attend(made)
					s.publish()
				} else if made.kill == nil {
					made.kill = &kill{grace: s.pod.Grace}
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
	streams, err := newStreams(s.one.LogsAsMessage, s.shell.credential)
	if err != nil {
		return err
	}
	stdin := s.shell.null
	if s.one.Stdin {
		stdin = os.Stdin
	}
	made.oomKills, _ = oomKills(cgroups, ownCgroup)
	files := []uintptr{stdin.Fd(), streams.files[0].Fd(), streams.files[1].Fd()}
	made.pid, made.end, err = s.shell.start(s.argv, files)
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
	go watchProbe(one.ctx, kind, probe, first, ask, func(good bool, words string) {
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
	}
}

// endWhereDue takes the next step of an end: the hook, the signal when it is this container's turn,
// the kill of everything when the grace is over.
func (s *supervisor) endWhereDue(now float64) {
	one := s.current
	if s.stop == nil && one.kill == nil {
		return
	}
	if one.ending == nil {
		one.ending = &ending{hooked: s.one.PreStop == nil}
		if one.kill != nil {
			one.ending.killAt = now + one.kill.grace
		} else {
			one.ending.killAt = s.stop.killAt
		}
		s.preStop(one)
	}
	due := one.ending.killAt
	if s.stop != nil {
		due = min(due, s.stop.killAt)
	}
	if !one.ending.asked {
		if now < due && !(one.ending.hooked && s.isItsTurn(now)) {
			s.wakeAt(due)
			return
		}
		one.ending.asked = true
		number, _ := signalOf(s.one.StopSignal)
		s.family.kill(one.pid, number, false)
		one.ending.killAt = max(due, now+leastGrace)
		s.wakeAt(one.ending.killAt)
		return
	}
	// An order that came since may have less patience than the first.
	least := one.ending.killAt
	if s.stop != nil {
		least = min(least, max(s.stop.killAt, s.stop.at+leastGrace))
	}
	if now < least {
		s.wakeAt(least)
		return
	}
	for _, pid := range descendants(os.Getpid()) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	// A process that was born in that moment is seen the next time.
	s.wakeAt(now + 0.1)
}

// isItsTurn says whether those have ended that end before this container does: sidecars go after
// the main containers and after the sidecars behind them.
func (s *supervisor) isItsTurn(now float64) bool {
	if s.one.Role != roleSidecar || s.stop == nil {
		return true
	}
	behind := false
	for _, peer := range s.pod.Containers {
		if peer.Name == s.one.Name {
			behind = true
			continue
		}
		waits := peer.Role == roleMain || (peer.Role == roleSidecar && behind)
		state := s.board.seen[peer.Name]
		if waits && state.State == running && !s.board.lost[peer.Name] {
			return false
		}
	}
	return true
}

func (s *supervisor) preStop(one *attempt) {
	if one.ending.hooked {
		return
	}
	go func() {
		s.actor.hook(one.ctx, *s.one.PreStop)
		s.tell(one, func() { one.ending.hooked = true })
	}()
}

// ended takes the end of the container's first process: all of its others end with it.
func (s *supervisor) ended(status syscall.WaitStatus) {
	one := s.current
	s.current = nil
	one.cancel()
	finished := now()
	if !s.family.extinguish(extinction) {
		fmt.Fprintln(os.Stderr, "podbridge-helper: processes of the container do not die")
	}
	one.streams.drain(drainage)
	exit := Exit{Code: status.ExitStatus(), Reason: "Completed", StartedAt: &one.began, FinishedAt: finished}
	if status.Signaled() {
		exit.Signal = int(status.Signal())
		exit.Code = 128 + exit.Signal
	}
	if s.stop != nil && s.stop.why == whyHardStop && one.ending != nil && exit.Code == 0 {
		exit.Code = exitForcing + int(syscall.SIGTERM)
	}
	if exit.Code != 0 {
		exit.Reason = "Error"
		if kills, known := oomKills(cgroups, ownCgroup); known && kills > one.oomKills {
			exit.Reason = "OOMKilled"
		}
	}
	exit.Message = s.messageOf(one, exit)
	s.conclude(one, exit)
}

func (s *supervisor) messageOf(one *attempt, exit Exit) string {
	if s.stop != nil && s.stop.why == whyHardStop && one.ending != nil {
		return fmt.Sprintf("the hard stop of %g s was reached", *s.pod.HardStop)
	}
	text := s.note.text()
	if text == "" && exit.Code != 0 && one.streams.tail != nil {
		text = one.streams.tail.text()
	}
	return text
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
	s.due = exit.FinishedAt + delay
	s.phase = resting
	s.publish()
}

// mayLeave says whether a container that is over may end. Where a cloud ends all containers with
// the first, none goes before the last; nothing holds it longer than the pod may live.
func (s *supervisor) mayLeave(now float64) bool {
	if !s.one.Barrier || s.asked || now >= s.bound() {
		return true
	}
	s.wakeAt(s.bound())
	patience := s.patience(now)
	for _, peer := range s.pod.Containers {
		if peer.Name != s.one.Name && !s.board.isOver(peer.Name, patience) {
			return false
		}
	}
	return true
}

// bound is when no peer of the pod can have anything more to say.
func (s *supervisor) bound() float64 {
	bound := math.Inf(1)
	if s.pod.DeadlineAt != nil {
		bound = max(*s.pod.DeadlineAt, s.began)
	}
	if s.pod.HardStop != nil {
		bound = min(bound, s.began+*s.pod.HardStop)
	}
	return bound + s.pod.Grace + leastGrace + afterwards
}

// leave says the last words and gives the exit code.
func (s *supervisor) leave() int {
	if s.one.Record {
		s.state.Name = s.one.Name
		made := Record{
			UID: s.pod.UID, Attempt: s.pod.Attempt, By: "run", At: now(), Containers: []State{s.state},
		}
		made.judge()
		if text, err := made.text(s.payload.Key); err == nil {
			_, _ = os.Stdout.WriteString(text)
		}
	}
	return s.code
}

// judge says why the pod failed as a whole, where more is to say than its containers' codes.
func (r *Record) judge() {
	for _, one := range r.Containers {
		switch {
		case one.StopWhy == whyDeadline:
			r.Failed, r.Reason, r.Message = true, reasonDeadline, messageDeadline
			return
		case one.StopWhy == whyHardStop && r.Reason == "":
			r.Failed, r.Reason, r.Message = true, "HardStop", "the pod ran for as long as any may"
		case one.State == waiting && one.Reason == reasonPeer && r.Reason == "":
			r.Failed, r.Reason, r.Message = true, reasonPeer, one.Message
		}
	}
}
