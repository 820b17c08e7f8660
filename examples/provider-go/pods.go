package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

const (
	backendName = "host"
	backendType = "process"
	podIP       = "127.0.0.1"

	// The kubelet's numbers: back-off doubles from the first to the longest, and a run that was
	// longer than `quiet` clears it.
	firstBackoff   = 10 * time.Second
	longestBackoff = 300 * time.Second
	quiet          = 600 * time.Second

	defaultGrace = 30 * time.Second
	// again is how soon something is looked at anew that nobody tells the end of.
	again = 100 * time.Millisecond
	// retry is how soon a start is tried again that this host failed at.
	retry = 5 * time.Second
	// slack is how much later than the provider a keeper ends what is over its time.
	slack = 5 * time.Second
)

// pods keeps every pod on its way: start, restart, end, removal. It is level-triggered: a step
// looks at what is wanted of a pod and at what its runs' folders say, and does what is due. What it
// must still know after a restart is in the state folder before anybody is told of it:
//
//	pods/CLUSTER_UID/record.json
//	pods/CLUSTER_UID/runs/CONTAINER.RESTART/    see process.go
type pods struct {
	mu       sync.Mutex
	folder   string
	epoch    string
	limit    int
	maxRun   time.Duration
	known    map[string]*pod     // by cluster_uid
	journals map[string]*journal // by cluster/node
}

// record is what is durable of a pod.
type record struct {
	Request  []byte    // a CreatePodRequest without secret values
	Secrets  bool      // there were some: nothing new starts before it is created again
	Start    time.Time // status.startTime: the deadline counts from here
	Accepted time.Time
	Deleting bool
	StopAt   time.Time // zero: nobody ordered an end
	KillAt   time.Time
	Reason   string // why the whole pod failed
	Message  string
	Lost     bool
	Ended    bool
	Acked    bool // the terminal facts are safe
}

type pod struct {
	record
	key      string
	request  *rpc.CreatePodRequest
	manifest *manifest // nil: never asked for, only deleted
	asked    bool      // created since this provider started: the request is whole
	gone     bool      // nothing of it is left, also of its record; kept here until acknowledged
	runs     map[string][]*run
	revision int64
	timer    *time.Timer
	problem  map[string]string // why a container could not be started, by name
	retryAt  map[string]time.Time
}

// run is one run of a container.
type run struct {
	folder   string
	restart  int32
	started  *started
	ended    *ended
	kept     bool
	killSent time.Time
	done     chan struct{} // closed when it is over
}

// openPods reads the state folder and goes on with what it finds.
func openPods(folder string, limit int, maxRun time.Duration) (*pods, error) {
	all := &pods{
		folder: filepath.Join(folder, "pods"), epoch: newEpoch(), limit: limit, maxRun: maxRun,
		known: map[string]*pod{}, journals: map[string]*journal{},
	}
	if err := os.MkdirAll(all.folder, 0o700); err != nil {
		return nil, err
	}
	found, err := os.ReadDir(all.folder)
	if err != nil {
		return nil, err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, one := range found {
		p, err := all.read(one.Name())
		if errors.Is(err, os.ErrNotExist) {
			// Nobody was ever told of it.
			os.RemoveAll(filepath.Join(all.folder, one.Name()))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name(), err)
		}
		all.known[p.key] = p
		all.step(p)
	}
	return all, nil
}

func (all *pods) read(key string) (*pod, error) {
	p := newPod(key)
	if err := readJSON(filepath.Join(all.folder, key, "record.json"), &p.record); err != nil {
		return nil, err
	}
	p.request = &rpc.CreatePodRequest{}
	if err := proto.Unmarshal(p.Request, p.request); err != nil {
		return nil, err
	}
	if len(p.request.Manifest) == 0 {
		return p, nil
	}
	var err error
	if p.manifest, err = parse(p.request.Manifest, p.request.Pod); err != nil {
		return nil, err
	}
	for _, one := range p.manifest.all() {
		for restart := int32(0); ; restart++ {
			folder := all.runFolder(p, one.Name, restart)
			if _, err := os.Stat(folder); err != nil {
				break
			}
			found := &run{folder: folder, restart: restart, kept: true, done: make(chan struct{})}
			found.look()
			if found.neverBegan() {
				break
			}
			p.runs[one.Name] = append(p.runs[one.Name], found)
			if found.kept {
				go func() {
					awaitKeeper(folder)
					all.poke(p)
				}()
			}
		}
	}
	return p, nil
}

func newPod(key string) *pod {
	return &pod{
		key: key, request: &rpc.CreatePodRequest{}, runs: map[string][]*run{},
		problem: map[string]string{}, retryAt: map[string]time.Time{},
	}
}

func keyOf(cluster, uid string) string { return cluster + "_" + uid }

func (all *pods) runFolder(p *pod, name string, restart int32) string {
	return filepath.Join(all.folder, p.key, "runs", name+"."+strconv.Itoa(int(restart)))
}

// save makes the record durable. Secret values never reach the disk.
func (all *pods) save(p *pod) error {
	bare := proto.Clone(p.request).(*rpc.CreatePodRequest)
	bare.PullCredentials, bare.Volumes = nil, nil // of no use here
	p.Secrets = p.Secrets && !p.asked
	for _, environment := range bare.Environment {
		for _, each := range environment.Variables {
			if secret := each.GetSecret(); secret != nil {
				secret.Value, p.Secrets = "", true
			}
		}
	}
	text, err := proto.Marshal(bare)
	if err != nil {
		return err
	}
	p.Request = text
	folder := filepath.Join(all.folder, p.key)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(folder, "record.json"), &p.record)
}

// journal returns the journal of a node, with all.mu held.
func (all *pods) journal(cluster, node string) *journal {
	key := cluster + "/" + node
	if all.journals[key] == nil {
		all.journals[key] = newJournal(all.epoch)
	}
	return all.journals[key]
}

// active counts the pods that take a place.
func (all *pods) active() int {
	count := 0
	for _, one := range all.known {
		if !one.Ended && !one.gone {
			count++
		}
	}
	return count
}

// poke has a pod looked at, since something may have changed.
func (all *pods) poke(p *pod) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.known[p.key] == p {
		all.step(p)
	}
}

// step does what is due for a pod, tells of it, and sets the time of the next look. With all.mu
// held.
func (all *pods) step(p *pod) {
	now := time.Now()
	for name, runs := range p.runs {
		last := runs[len(runs)-1]
		last.look()
		if last.neverBegan() {
			p.problem[name] = "the process that keeps it could not begin"
			p.retryAt[name] = now.Add(retry)
			if p.runs[name] = runs[:len(runs)-1]; len(runs) == 1 {
				delete(p.runs, name)
			}
		}
	}
	before := p.record
	var wake time.Time
	if !p.Ended {
		wake = all.advance(p, now)
	}
	if p.Ended && p.Deleting && p.Acked && !p.gone {
		// Nothing of it runs, and its end is safe. After a restart its absence says as much.
		if err := os.RemoveAll(filepath.Join(all.folder, p.key)); err != nil {
			log.Printf("pod %s: %v", p.key, err)
			wake = now.Add(retry)
		} else {
			p.gone = true
		}
	}
	if !p.gone && !sameRecord(before, p.record) {
		if err := all.save(p); err != nil {
			// Nobody is told what is not durable.
			log.Printf("pod %s: %v", p.key, err)
			p.record, wake = before, now.Add(retry)
		}
	}
	id := p.request.Pod
	p.revision = all.journal(id.Cluster, id.Node).publish(p.facts())
	if p.timer != nil {
		p.timer.Stop()
	}
	if !wake.IsZero() {
		p.timer = time.AfterFunc(time.Until(wake), func() { all.poke(p) })
	}
}

func sameRecord(a, b record) bool {
	return a.Ended == b.Ended && a.KillAt.Equal(b.KillAt)
}

// advance starts and ends containers; it returns when to look again though nothing changes.
func (all *pods) advance(p *pod, now time.Time) time.Time {
	if p.manifest == nil || p.finished() {
		// Work that was over before an order to end came is not touched by it.
		p.Ended = true
		return time.Time{}
	}
	var wake time.Time
	sooner := func(at time.Time) {
		if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	if seconds := p.manifest.Spec.ActiveDeadlineSeconds; seconds != nil && p.Reason == "" {
		due := p.Start.Add(time.Duration(*seconds) * time.Second)
		if due.After(now) {
			sooner(due)
		} else if p.StopAt.IsZero() {
			p.stop(due, now.Add(p.grace()))
			p.Reason = "DeadlineExceeded"
			p.Message = "Pod was active on the node longer than the specified deadline"
		}
	}
	if p.StopAt.IsZero() {
		for _, one := range p.due() {
			if at := all.start(p, one, now); !at.IsZero() {
				sooner(at)
			}
		}
	}
	running := false
	for _, runs := range p.runs {
		last := runs[len(runs)-1]
		if last.ended != nil {
			continue
		}
		running = true
		if last.started == nil {
			sooner(now.Add(again)) // adopted while it was starting: nobody tells
		}
		if !p.StopAt.IsZero() && (last.killSent.IsZero() || p.KillAt.Before(last.killSent)) {
			if err := endRun(last.folder, p.KillAt); err == nil {
				last.killSent = p.KillAt
			} else {
				sooner(now.Add(again))
			}
		}
	}
	if !p.StopAt.IsZero() && !running {
		p.Ended = true
	}
	return wake
}

// stop orders an end; a later order may only bring the kill forward.
func (p *pod) stop(at, killAt time.Time) {
	if p.StopAt.IsZero() {
		p.StopAt, p.KillAt = at, killAt
	} else if killAt.Before(p.KillAt) {
		p.KillAt = killAt
	}
}

func (p *pod) grace() time.Duration {
	if p.manifest != nil && p.manifest.Spec.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.manifest.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return defaultGrace
}

// last returns a container's latest run; nil: there was none.
func (p *pod) last(name string) *run {
	if runs := p.runs[name]; len(runs) > 0 {
		return runs[len(runs)-1]
	}
	return nil
}

// begun returns a container's runs without one that is only about to start.
func (p *pod) begun(name string) []*run {
	runs := p.runs[name]
	if last := p.last(name); last != nil && last.started == nil && last.ended == nil {
		return runs[:len(runs)-1]
	}
	return runs
}

// restarts says whether a container that ended runs again, back-off aside.
func (p *pod) restarts(end *ended) bool {
	switch p.manifest.Spec.RestartPolicy {
	case "Never":
		return false
	case "OnFailure":
		return end.Code != 0
	}
	return true
}

// finished says whether the pod's own work is over for good: an init container failed and may not
// run again, or all others have ended and none may.
func (p *pod) finished() bool {
	for _, one := range p.manifest.Spec.InitContainers {
		last := p.last(one.Name)
		if last != nil && last.ended != nil && last.ended.Code != 0 && !p.restarts(last.ended) {
			return true
		}
	}
	for _, one := range p.manifest.Spec.Containers {
		last := p.last(one.Name)
		if last == nil || last.ended == nil || p.restarts(last.ended) {
			return false
		}
	}
	return true
}

// due returns the containers that should run now: the first init container that has not succeeded,
// else all others.
func (p *pod) due() []container {
	for _, one := range p.manifest.Spec.InitContainers {
		if last := p.last(one.Name); last == nil || last.ended == nil || last.ended.Code != 0 {
			return []container{one}
		}
	}
	return p.manifest.Spec.Containers
}

// start starts a container unless it runs or must not; it returns when to try again.
func (all *pods) start(p *pod, one container, now time.Time) time.Time {
	last := p.last(one.Name)
	restart, backoff := int32(0), time.Duration(0)
	if last != nil {
		if last.ended == nil || p.notReady(one.Name) != nil {
			return time.Time{}
		}
		if !p.isInit(one.Name) && !p.restarts(last.ended) {
			return time.Time{}
		}
		restart, backoff = last.restart+1, last.backoff()
		if at := last.ended.At.Add(backoff); at.After(now) {
			return at
		}
	}
	if p.notReady(one.Name) != nil || p.Secrets && !p.asked {
		return time.Time{}
	}
	if at := p.retryAt[one.Name]; at.After(now) {
		return at
	}
	what, _ := p.manifest.expand(one, p.request.Environment)
	hardStop := all.maxRun
	if seconds := p.manifest.Spec.ActiveDeadlineSeconds; seconds != nil {
		due := p.Start.Add(time.Duration(*seconds) * time.Second)
		// Later than we would do it, who know what it means: this is for when we are gone.
		hardStop = min(hardStop, max(0, due.Sub(now))+slack)
	}
	folder := all.runFolder(p, one.Name, restart)
	err := startRun(folder, order{
		Argv: what.argv, Env: what.env, Dir: what.dir,
		Backoff: backoff, Grace: p.grace(), HardStop: hardStop,
	}, func() { all.poke(p) })
	if err != nil {
		log.Printf("pod %s: container %s: %v", p.key, one.Name, err)
		p.problem[one.Name] = "the process that keeps it cannot be started"
		p.retryAt[one.Name] = now.Add(retry)
		return now.Add(retry)
	}
	delete(p.problem, one.Name)
	made := &run{folder: folder, restart: restart, kept: true, done: make(chan struct{})}
	p.runs[one.Name] = append(p.runs[one.Name], made)
	if old := len(p.runs[one.Name]) - 3; old >= 0 {
		// Of older runs nobody can ask the log; their folders say that they were.
		os.Remove(filepath.Join(p.runs[one.Name][old].folder, logFile))
	}
	return time.Time{}
}

func (p *pod) isInit(name string) bool {
	for _, one := range p.manifest.Spec.InitContainers {
		if one.Name == name {
			return true
		}
	}
	return false
}

// notReady returns why a container cannot start yet by what Kubernetes' side knows; nil: it can.
func (p *pod) notReady(name string) *rpc.Waiting {
	for _, environment := range p.request.Environment {
		if environment.Container == name {
			return environment.NotReady
		}
	}
	return nil
}

func (p *pod) waitsForContent() bool {
	for _, environment := range p.request.Environment {
		if environment.NotReady != nil {
			return true
		}
	}
	return false
}

// look reads what the run's keeper has written.
func (r *run) look() {
	if r.ended != nil {
		return
	}
	r.kept = isKept(r.folder) // first: what a keeper wrote before it went is read below
	if begin := (started{}); r.started == nil && readJSON(filepath.Join(r.folder, startedFile), &begin) == nil {
		r.started = &begin
	}
	end := ended{}
	if err := readJSON(filepath.Join(r.folder, exitFile), &end); err == nil {
		r.ended = &end
	} else if !r.kept && r.started != nil {
		r.ended = lost("The process that kept it is gone", r.started.At)
	}
	if r.ended != nil {
		close(r.done)
	}
}

// neverBegan says whether its keeper went before it started anything (a full disk): the same run may
// be started again.
func (r *run) neverBegan() bool { return !r.kept && r.started == nil && r.ended == nil }

func lost(message string, begun time.Time) *ended {
	return &ended{
		Code: 137, Reason: "ContainerStatusUnknown", Message: message, At: time.Now(), Started: begun,
	}
}

// backoff returns how long after this run's end the next one may start.
func (r *run) backoff() time.Duration {
	if r.restart == 0 || !r.ended.Started.IsZero() && r.ended.At.Sub(r.ended.Started) > quiet {
		return 0
	}
	waited := time.Duration(0)
	if r.started != nil {
		waited = r.started.Backoff
	}
	return min(longestBackoff, max(firstBackoff, 2*waited))
}

// facts says everything that is true of a pod.
func (p *pod) facts() *rpc.PodFacts {
	facts := &rpc.PodFacts{
		Pod: p.request.Pod, Generation: p.request.Generation, Stage: rpc.PodStage_POD_STAGE_WAITING,
		Failed: p.Reason != "", Reason: p.Reason, Message: p.Message, Disrupted: p.Lost,
	}
	if p.manifest != nil {
		facts.Backend, facts.AcceptedAt = backendName, timestamppb.New(p.Accepted)
		for _, one := range p.manifest.all() {
			facts.Containers = append(facts.Containers, p.containerFacts(one.Name))
		}
	}
	if len(p.runs) > 0 {
		facts.Stage = rpc.PodStage_POD_STAGE_ACTIVE
		facts.PodIps, facts.HostIps = []string{podIP}, []string{podIP}
	}
	if p.Ended {
		facts.Stage = rpc.PodStage_POD_STAGE_ENDED
	}
	if p.gone {
		facts.Stage = rpc.PodStage_POD_STAGE_GONE
	}
	return facts
}

func (p *pod) containerFacts(name string) *rpc.ContainerFacts {
	facts := &rpc.ContainerFacts{Name: name}
	runs := p.begun(name)
	if len(runs) == 0 && p.Lost {
		facts.RestartCount = p.request.Recorded.GetRestartCounts()[name]
		facts.State = &rpc.ContainerFacts_Terminated{Terminated: p.lostEnd(name)}
		return facts
	}
	if len(runs) == 0 {
		facts.State = &rpc.ContainerFacts_Waiting{Waiting: p.waiting(name)}
		return facts
	}
	last := runs[len(runs)-1]
	running := last.ended == nil
	facts.RestartCount, facts.ContainerId = last.restart, p.containerID(name, last)
	facts.Started, facts.Ready = &running, &running
	if len(runs) > 1 {
		before := runs[len(runs)-2]
		facts.LastTermination = before.ended.wire(p.containerID(name, before))
	}
	if running {
		at := timestamppb.New(last.started.At)
		facts.State = &rpc.ContainerFacts_Running{Running: &rpc.Running{StartedAt: at}}
		return facts
	}
	end := last.ended.wire(facts.ContainerId)
	starting := len(runs) < len(p.runs[name])
	if !starting && !p.willRestart(name, last) {
		facts.State = &rpc.ContainerFacts_Terminated{Terminated: end}
		return facts
	}
	// What is about to run again shows its end as the one before.
	waiting := p.waiting(name)
	if !starting && waiting.Message == "" {
		words := fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s_%s(%s)", last.backoff(), name,
			p.request.Pod.Name, p.request.Pod.Namespace, p.request.Pod.Uid)
		waiting = &rpc.Waiting{Reason: "CrashLoopBackOff", Message: words}
	}
	facts.LastTermination, facts.State = end, &rpc.ContainerFacts_Waiting{Waiting: waiting}
	return facts
}

func (p *pod) containerID(name string, one *run) string {
	return fmt.Sprintf("%s://%s.%s.%d", backendType, p.request.Pod.Uid, name, one.restart)
}

func (p *pod) willRestart(name string, last *run) bool {
	if p.Ended || !p.StopAt.IsZero() || !p.restarts(last.ended) {
		return false
	}
	return !p.isInit(name) || last.ended.Code != 0
}

// waiting returns why a container does not run.
func (p *pod) waiting(name string) *rpc.Waiting {
	if told := p.notReady(name); told != nil && !p.Ended {
		return told
	}
	reason := "ContainerCreating"
	if len(p.manifest.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	message := p.problem[name]
	if p.Secrets && !p.asked {
		message = "the provider started anew and keeps no secrets: the pod must be created again"
	}
	return &rpc.Waiting{Reason: reason, Message: message}
}

// lostEnd returns how a container of a lost pod ended: as Kubernetes recorded it, or unknown.
func (p *pod) lostEnd(name string) *rpc.Terminated {
	for _, one := range p.request.Recorded.GetEnded() {
		if one.Container == name {
			return one.Terminated
		}
	}
	end := lost("The container could not be located: this provider does not have it", time.Time{})
	end.At = p.Accepted
	return end.wire("")
}

func (e *ended) wire(id string) *rpc.Terminated {
	if e == nil {
		return nil
	}
	made := &rpc.Terminated{
		ExitCode: e.Code, Signal: e.Signal, Reason: e.Reason, Message: e.Message,
		FinishedAt: timestamppb.New(e.At), ContainerId: id,
	}
	if !e.Started.IsZero() {
		made.StartedAt = timestamppb.New(e.Started)
	}
	return made
}
