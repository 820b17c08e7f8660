package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

// contract is the number of the contract that this provider speaks.
const (
	contract    = 1
	contractKey = "podbridge-contract"
)

// server answers the contract's calls. What it embeds answers UNIMPLEMENTED to the others: Exec,
// Attach, PortForward and GetStats are optional, and not among the backend's abilities.
type server struct {
	rpc.UnimplementedProviderServer
	pods *pods
}

// WatchNode tells the machine, which does not change.
func (s *server) WatchNode(
	request *rpc.WatchNodeRequest, stream grpc.ServerStreamingServer[rpc.WatchNodeResponse],
) error {
	if err := requireUUID("cluster", request.Cluster); err != nil {
		return err
	}
	// CPU and memory are for a scheduler to count with; nothing here limits a process.
	capacity := map[string]string{
		"pods": strconv.Itoa(s.pods.limit), "cpu": strconv.Itoa(runtime.NumCPU()), "memory": memory(),
	}
	err := stream.Send(&rpc.WatchNodeResponse{
		Capacity: capacity, Allocatable: capacity, ProviderVersion: version,
		Backends: []*rpc.Backend{{
			Name: backendName, Type: backendType, Abilities: []string{"logs"},
			Capacity: capacity, Ready: true,
		}},
	})
	if err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// CreatePod takes a pod on. With one backend there is nothing to propose.
func (s *server) CreatePod(
	_ context.Context, request *rpc.CreatePodRequest,
) (*rpc.CreatePodResponse, error) {
	if err := checkIdentity(request.Pod); err != nil {
		return nil, err
	}
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	key := keyOf(request.Pod.Cluster, request.Pod.Uid)
	known := s.pods.known[key]
	if known != nil && (known.gone || known.manifest == nil || known.asked && !known.waitsForContent()) {
		// Also one that is gone: a pod that has had its end never runs again.
		return accepted(known, nil), nil
	}
	made, err := parse(request.Manifest, request.Pod)
	if err != nil {
		return nil, err
	}
	if found := request.Recorded.GetBackend(); found != "" && found != backendName {
		words := fmt.Sprintf("found %q; the backend is %s", found, backendName)
		return nil, fail(invalid, "", violation{"recorded.backend", words})
	}
	refused, approximations := judge(request.Manifest)
	refused = append(refused, made.checkLaunch(request.Environment)...)
	isLost := known == nil && request.Recorded.GetStarted()
	// What runs already is adopted: only what has not begun can be refused.
	if begun := isLost || known != nil && len(known.runs) > 0; !begun && len(refused) > 0 {
		return nil, fail(unsupported, "", refused...)
	}
	p := known
	if p == nil {
		if !isLost && s.pods.active() >= s.pods.limit {
			return nil, fail(outOfCapacity, fmt.Sprintf("%d pods are the most", s.pods.limit))
		}
		p = newPod(key)
		p.Accepted = time.Now()
		p.Start = p.Accepted
		p.Lost, p.Ended = isLost, isLost
	} else {
		request.Pod = known.request.Pod // the attempt that runs
	}
	if request.Recorded.GetStartTime() != nil {
		p.Start = request.Recorded.StartTime.AsTime()
	}
	p.request, p.manifest, p.asked = request, made, true
	if err := s.pods.save(p); err != nil {
		if known == nil {
			os.RemoveAll(filepath.Join(s.pods.folder, key))
		}
		return nil, fail(unavailable, "the state folder cannot be written")
	}
	s.pods.known[key] = p
	s.pods.step(p)
	return accepted(p, approximations), nil
}

func accepted(p *pod, approximations []*rpc.Approximation) *rpc.CreatePodResponse {
	answer := &rpc.Accepted{
		Attempt: p.request.Pod.Attempt, Generation: p.request.Generation,
		Approximations: approximations,
	}
	if p.manifest != nil {
		answer.Backend = backendName
	}
	return &rpc.CreatePodResponse{Result: &rpc.CreatePodResponse_Accepted{Accepted: answer}}
}

// UpdatePod applies labels, annotations and the deadline, and refuses all else by field.
func (s *server) UpdatePod(
	_ context.Context, request *rpc.UpdatePodRequest,
) (*rpc.UpdatePodResponse, error) {
	if err := checkIdentity(request.Pod); err != nil {
		return nil, err
	}
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	p := s.pods.known[keyOf(request.Pod.Cluster, request.Pod.Uid)]
	if p == nil || p.manifest == nil {
		return nil, fail(notFound, "this pod is not known: create it first")
	}
	if request.Generation <= p.request.Generation {
		return &rpc.UpdatePodResponse{Generation: p.request.Generation}, nil
	}
	made, err := parse(request.Manifest, request.Pod)
	if err != nil {
		return nil, err
	}
	refused := changes("spec", tree(p.request.Manifest)["spec"], tree(request.Manifest)["spec"])
	if refused = append(refused, made.checkLaunch(request.Environment)...); len(refused) > 0 {
		return nil, fail(unsupported, "", refused...)
	}
	before := *p
	p.manifest, p.asked = made, true
	p.request = &rpc.CreatePodRequest{
		Pod: before.request.Pod, Recorded: before.request.Recorded, Manifest: request.Manifest,
		Generation: request.Generation, Environment: request.Environment,
	}
	if err := s.pods.save(p); err != nil {
		*p = before
		return nil, fail(unavailable, "the state folder cannot be written")
	}
	s.pods.step(p)
	return &rpc.UpdatePodResponse{Generation: p.request.Generation}, nil
}

// DeletePod orders the end of a pod. One that is not known is gone, which is told as well.
func (s *server) DeletePod(
	_ context.Context, request *rpc.DeletePodRequest,
) (*rpc.DeletePodResponse, error) {
	if err := checkIdentity(request.Pod); err != nil {
		return nil, err
	}
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	key := keyOf(request.Pod.Cluster, request.Pod.Uid)
	p := s.pods.known[key]
	if p == nil {
		p = newPod(key)
		p.request.Pod, p.Deleting, p.Acked = request.Pod, true, true
		s.pods.known[key] = p
	}
	if p.gone {
		return &rpc.DeletePodResponse{}, nil
	}
	grace := p.grace()
	if request.GracePeriodSeconds != nil {
		grace = time.Duration(max(0, *request.GracePeriodSeconds)) * time.Second
	}
	now, before := time.Now(), p.record
	p.Deleting = true
	p.stop(now, now.Add(grace))
	if err := s.pods.save(p); err != nil {
		p.record = before
		return nil, fail(unavailable, "the state folder cannot be written")
	}
	s.pods.step(p)
	return &rpc.DeletePodResponse{}, nil
}

// AckPods lets go of facts that are safe in Kubernetes.
func (s *server) AckPods(
	_ context.Context, request *rpc.AckPodsRequest,
) (*rpc.AckPodsResponse, error) {
	if err := requireUUID("cluster", request.Cluster); err != nil {
		return nil, err
	}
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	if request.Epoch != s.pods.epoch {
		return &rpc.AckPodsResponse{}, nil
	}
	for _, ack := range request.Pods {
		key := keyOf(request.Cluster, ack.Uid)
		p := s.pods.known[key]
		if p == nil || ack.Revision < p.revision {
			continue
		}
		if p.gone {
			delete(s.pods.known, key)
			s.pods.journal(request.Cluster, p.request.Pod.Node).forget(ack.Uid)
		} else if p.Ended && !p.Acked {
			p.Acked = true
			if err := s.pods.save(p); err != nil {
				p.Acked = false
				return nil, fail(unavailable, "the state folder cannot be written")
			}
			s.pods.step(p)
		}
	}
	return &rpc.AckPodsResponse{}, nil
}

// WatchPods tells the facts of a node's pods.
func (s *server) WatchPods(
	request *rpc.WatchPodsRequest, stream grpc.ServerStreamingServer[rpc.WatchPodsResponse],
) error {
	if err := requireUUID("cluster", request.Cluster); err != nil {
		return err
	}
	s.pods.mu.Lock()
	journal := s.pods.journal(request.Cluster, request.Node)
	s.pods.mu.Unlock()
	return journal.watch(stream.Context(), request.Epoch, request.Revision, stream.Send)
}

// GetContainerLogs sends the log of a container's latest run, or of the one before it.
func (s *server) GetContainerLogs(
	request *rpc.GetContainerLogsRequest,
	stream grpc.ServerStreamingServer[rpc.GetContainerLogsResponse],
) error {
	if err := checkIdentity(request.Pod); err != nil {
		return err
	}
	if request.SinceSeconds != nil && request.SinceTime != nil {
		return fail(invalid, "give since_seconds or since_time, not both")
	}
	s.pods.mu.Lock()
	var one *run
	if p := s.pods.known[keyOf(request.Pod.Cluster, request.Pod.Uid)]; p != nil {
		back := 1
		if request.Previous {
			back = 2
		}
		if runs := p.begun(request.Container); len(runs) >= back {
			one = runs[len(runs)-back]
		}
	}
	s.pods.mu.Unlock()
	if one == nil {
		return fail(notFound, fmt.Sprintf("there is no such run of container %q", request.Container))
	}
	path := filepath.Join(one.folder, logFile)
	return sendLog(stream.Context(), path, request, one.done, stream.Send)
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func requireUUID(field, text string) error {
	if uuid.MatchString(text) {
		return nil
	}
	words := fmt.Sprintf("found %.64q; allowed: a UUID", text)
	return fail(invalid, "", violation{field, words})
}

func checkIdentity(pod *rpc.PodIdentity) error {
	var wrong []violation
	for _, one := range [][2]string{
		{"node", pod.GetNode()}, {"namespace", pod.GetNamespace()}, {"name", pod.GetName()},
	} {
		if one[1] == "" {
			wrong = append(wrong, violation{"pod." + one[0], "required"})
		}
	}
	if pod.GetAttempt() < 0 {
		wrong = append(wrong, violation{"pod.attempt", "allowed: 0 or more"})
	}
	for _, one := range [][2]string{{"cluster", pod.GetCluster()}, {"uid", pod.GetUid()}} {
		if !uuid.MatchString(one[1]) {
			words := fmt.Sprintf("found %.64q; allowed: a UUID", one[1])
			wrong = append(wrong, violation{"pod." + one[0], words})
		}
	}
	if len(wrong) > 0 {
		return fail(invalid, "", wrong...)
	}
	return nil
}

// unary and streaming carry the contract's number with every answer, and refuse a neighbour that
// is too far away.
func unary(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	if err := grpc.SetTrailer(ctx, metadata.Pairs(contractKey, strconv.Itoa(contract))); err != nil {
		return nil, err
	}
	if err := agree(ctx); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func streaming(
	service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	if err := stream.SendHeader(metadata.Pairs(contractKey, strconv.Itoa(contract))); err != nil {
		return err
	}
	if err := agree(stream.Context()); err != nil {
		return err
	}
	return next(service, stream)
}

func agree(ctx context.Context) error {
	for _, theirs := range metadata.ValueFromIncomingContext(ctx, contractKey) {
		number, err := strconv.Atoi(theirs)
		if err != nil || number < contract-1 || number > contract+1 {
			return fail(invalid, fmt.Sprintf(
				"contract %q is not spoken here: this side speaks %d and accepts %d to %d",
				theirs, contract, contract-1, contract+1))
		}
	}
	return nil
}

// memory returns the machine's memory as a quantity.
func memory() string {
	text, _ := os.ReadFile("/proc/meminfo")
	for _, line := range strings.Split(string(text), "\n") {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "MemTotal:" {
			return words[1] + "Ki"
		}
	}
	return "0"
}
