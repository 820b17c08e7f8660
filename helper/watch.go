package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
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
	made := &watcher{board: board, pod: &payload.Pod, began: now(), orders: make(chan stop)}
	if made.tunnel, err = newTunnel(payload.Tunnel, made.offer()); err != nil {
		return 0, err
	}
	made.tunnel.open()
	for {
		board.look()
		at, over := now(), 0.0
		if board.stop != nil {
			made.until(board.stop.KillAt + leastGrace + afterwards)
		}
		if made.isOver(at, &over) {
			break
		}
		made.tell()
		timer := time.NewTimer(max(0, seconds(over-at)))
		select {
		case <-board.changed:
		case <-stops:
			made.until(now() + made.pod.Grace)
		case order := <-made.orders:
			if err := board.order(order); err != nil {
				fmt.Fprintf(os.Stderr, "podbridge-helper: %v\n", err)
			}
		case <-timer.C:
		}
		timer.Stop()
	}
	record := made.record(true)
	if made.tunnel != nil {
		made.tunnel.service.tell(record, true)
		made.tunnel.close()
	}
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

	tunnel *tunnel
	told   []int // how far each container's states were told; negative: lost
	orders chan stop
}

// offer makes what the provider may ask of `watch`.
func (w *watcher) offer() *service {
	return newService(introduction{Role: "watch", States: true}, func(ctx context.Context, grace float64) error {
		at := now()
		select {
		case w.orders <- stop{at, at + grace}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// tell tells the provider how the containers are, where that is new.
func (w *watcher) tell() {
	if w.tunnel == nil {
		return
	}
	var news []int
	for _, peer := range w.pod.Containers {
		number := w.board.seen[peer.Name].Sequence
		if w.board.lost[peer.Name] {
			number = -number
		}
		news = append(news, number)
	}
	if !slices.Equal(news, w.told) {
		w.told = news
		w.tunnel.service.tell(w.record(false), false)
	}
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
	// One that comes after an order to end sees that first, and starts nothing.
	patience := w.began + w.pod.PeerWait
	if stop := w.board.stop; stop != nil {
		patience = min(patience, stop.At+afterwards)
	}
	isPatient := at < patience
	if isPatient {
		*next = patience
	}
	failed := w.board.failedInit() != ""
	over := w.board.mainsOver(at, isPatient)
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
		if !w.board.isOver(one.Name, isPatient) {
			return false
		}
	}
	return true
}

// record is what the containers said last; one that is gone without a word has an end that nobody
// knows. When the pod is over, so has one that still runs or never came.
func (w *watcher) record(over bool) Record {
	at := now()
	made := Record{UID: w.pod.UID, Attempt: w.pod.Attempt, By: "watch", At: at}
	for _, peer := range w.pod.Containers {
		state := w.board.seen[peer.Name]
		state.Name = peer.Name
		switch {
		case state.Sequence == 0 && !over:
			state.State, state.Reason = waiting, "ContainerCreating"
		case state.Sequence == 0:
			state.State, state.Reason = waiting, reasonPeer
			state.Message = fmt.Sprintf("the container %s did not come", peer.Name)
		case !state.Final && state.State == running && (over || w.board.lost[peer.Name]):
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
