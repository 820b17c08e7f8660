package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// watch waits until the pod is over and writes its record. It ends with 0 whatever the pod came to:
// that is in the record.
func watch(payload *Payload) (int, error) {
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	board, err := newBoard(payload, "")
	if err != nil {
		return 0, err
	}
	made := &watcher{board: board, pod: &payload.Pod, began: now()}
	for {
		board.look()
		at, over := now(), 0.0
		if made.isOver(at, &over) {
			break
		}
		timer := time.NewTimer(max(0, seconds(over-at)))
		select {
		case <-board.changed:
		case <-stops:
			made.until(now() + made.pod.Grace)
		case <-timer.C:
		}
		timer.Stop()
	}
	record := made.record()
	text, err := record.text(payload.Key)
	if err != nil {
		return 0, fail(exitHelper, "cannot write the record: %v", err)
	}
	if _, err := os.Stdout.WriteString(text); err != nil {
		return 0, fail(exitHelper, "cannot write the record: %s", reasonOf(err))
	}
	return 0, nil
}

type watcher struct {
	board *board
	pod   *Pod
	began float64
	bound *float64 // when it ends whatever the others do; nil: not known yet
}

// until sets the latest end, unless an earlier one is known.
func (w *watcher) until(at float64) {
	if w.bound == nil || at < *w.bound {
		w.bound = &at
	}
}

// isOver says whether nothing is to be waited for; `next` is when to look again at the latest.
func (w *watcher) isOver(at float64, next *float64) bool {
	*next = at + 3600
	if w.pod.DeadlineAt != nil {
		w.until(max(*w.pod.DeadlineAt, w.began) + w.pod.Grace + leastGrace + afterwards)
	}
	if w.pod.HardStop != nil {
		w.until(w.began + *w.pod.HardStop + w.pod.Grace + leastGrace + afterwards)
	}
	patience := at < w.began+w.pod.PeerWait
	if patience {
		*next = w.began + w.pod.PeerWait
	}
	failed := w.board.failedInit() != ""
	over := w.board.mainsOver(at, patience)
	if failed || over != nil {
		from := at
		if over != nil {
			from = *over
		}
		w.until(from + w.pod.Grace + leastGrace + afterwards)
	}
	if w.bound != nil {
		if at >= *w.bound {
			return true
		}
		*next = min(*next, *w.bound)
	}
	for _, one := range w.pod.Containers {
		if !w.board.isOver(one.Name, patience) {
			return false
		}
	}
	return true
}

// record is what the containers said last; one that is gone without a word has an end that nobody
// knows.
func (w *watcher) record() Record {
	at := now()
	made := Record{UID: w.pod.UID, Attempt: w.pod.Attempt, By: "watch", At: at}
	for _, peer := range w.pod.Containers {
		state := w.board.seen[peer.Name]
		state.Name = peer.Name
		switch {
		case state.Sequence == 0:
			state.State, state.Reason = waiting, reasonPeer
			state.Message = fmt.Sprintf("the container %s did not come", peer.Name)
		case !state.Final && state.State == running:
			state.Exit = &Exit{
				Code: 137, Reason: reasonUnknown, StartedAt: state.Since, FinishedAt: at,
				Message: "the container is no more, and left no word of its end",
			}
			if !w.board.lost[peer.Name] {
				state.Exit.Message = "the container still ran when the pod's time was over"
			}
			state.State, state.Since = ended, nil
		}
		made.Containers = append(made.Containers, state)
	}
	made.judge()
	return made
}
