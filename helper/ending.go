package main

import (
	"fmt"
	"math"
	"os"
	"syscall"
)

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
		// As at a kubelet: where there is no grace, there is no hook.
		one.ending.hooked = one.ending.hooked || one.ending.killAt <= now
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
		if !one.ending.hooked {
			s.notice(true, preStopFailed, preStopWords)
		}
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
		good := s.actor.hook(one.ctx, *s.one.PreStop)
		s.tell(one, func() {
			// Cut off by the end of the grace it has been told of already.
			if !good && !one.ending.asked {
				s.notice(true, preStopFailed, preStopWords)
			}
			one.ending.hooked = true
		})
	}()
}

const preStopFailed, preStopWords = "FailedPreStopHook", "PreStopHook failed"

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
	s.unfinished = one.streams.unfinished()
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
	one.code = exit.Code
	close(one.over)
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
	close(s.left)
	s.tunnel.close()
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
