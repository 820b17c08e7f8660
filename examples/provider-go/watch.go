package main

import (
	"context"
	"sort"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

const (
	// batch is how many events share a message at the most: well under 16 MiB.
	batch = 256
	// pause between messages to one watcher: what comes in a flood is told together.
	pause = 10 * time.Millisecond
)

// journal holds the newest facts of the pods of one (cluster, node), by revision. Facts are always
// whole, so a watcher that is behind needs only the newest of each pod: no log has to be kept. Only
// forgetting a pod compacts: whoever resumes from before that gets a new snapshot.
type journal struct {
	mu        sync.Mutex
	epoch     string
	entries   map[string]entry // by UID
	revision  int64
	compacted int64
	mark      int64 // the revision of the sync mark
	changed   chan struct{}
}

type entry struct {
	revision int64
	facts    *rpc.PodFacts
}

// newJournal starts with the sync mark. Nobody watches before all pods of the state folder are
// published, so it is true from the beginning: `events` moves it behind them.
func newJournal(epoch string) *journal {
	return &journal{
		epoch: epoch, entries: map[string]entry{}, revision: 1, mark: 1,
		changed: make(chan struct{}),
	}
}

// publish tells new facts, unless they are what was told last; it returns their revision.
func (j *journal) publish(facts *rpc.PodFacts) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	uid := facts.Pod.Uid
	if last, known := j.entries[uid]; known && proto.Equal(last.facts, facts) {
		return last.revision
	}
	j.revision++
	j.entries[uid] = entry{j.revision, facts}
	close(j.changed)
	j.changed = make(chan struct{})
	return j.revision
}

// forget drops a pod whose end is acknowledged.
func (j *journal) forget(uid string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.compacted = max(j.compacted, j.entries[uid].revision)
	delete(j.entries, uid)
}

// watch sends everything after (epoch, revision), or a snapshot; then changes, until ctx ends.
func (j *journal) watch(
	ctx context.Context, epoch string, revision int64, send func(*rpc.WatchPodsResponse) error,
) error {
	var first []*rpc.WatchPodsEvent
	if !j.has(epoch, revision) {
		revision = 0
		snapshot := &rpc.SnapshotStarted{Backends: []string{backendName}}
		first = append(first, &rpc.WatchPodsEvent{
			Event: &rpc.WatchPodsEvent_SnapshotStarted{SnapshotStarted: snapshot},
		})
	}
	for {
		events, changed := j.events(revision)
		events = append(first, events...)
		first = nil
		for len(events) > 0 {
			now := events[:min(batch, len(events))]
			if err := send(&rpc.WatchPodsResponse{Epoch: j.epoch, Events: now}); err != nil {
				return err
			}
			revision = max(revision, now[len(now)-1].Revision)
			events = events[len(now):]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			time.Sleep(pause)
		}
	}
}

// has says whether a watcher can go on behind a revision.
func (j *journal) has(epoch string, revision int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return epoch == j.epoch && j.compacted <= revision && revision <= j.revision
}

// events returns what came after a revision, in order, and what is closed when more comes.
func (j *journal) events(after int64) ([]*rpc.WatchPodsEvent, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []*rpc.WatchPodsEvent
	for _, one := range j.entries {
		if one.revision > after {
			event := &rpc.WatchPodsEvent_Pod{Pod: one.facts}
			found = append(found, &rpc.WatchPodsEvent{Revision: one.revision, Event: event})
		}
	}
	sort.Slice(found, func(a, b int) bool { return found[a].Revision < found[b].Revision })
	if j.mark > after {
		if len(found) > 0 && found[len(found)-1].Revision > j.mark {
			// A pod that was told before the mark has changed since, and stands behind it: the
			// mark is told anew, or that pod would read as absent in between.
			j.revision++
			j.mark = j.revision
		}
		synced := &rpc.WatchPodsEvent_Synced{Synced: &rpc.BackendSynced{Backend: backendName}}
		found = append(found, &rpc.WatchPodsEvent{Revision: j.mark, Event: synced})
	}
	return found, j.changed
}
