package main

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	version    = 1 // of records, states and the tunnel
	payloads   = 2 // the version of payloads
	variable   = "PODBRIDGE_PAYLOAD_"
	maxPayload = 16 << 20 // bytes of JSON; far more than files and environment of one pod may be
	maxPieces  = 4096
)

// join puts a payload's pieces together: `version.index.count.digest.base64` each, in any order.
// The digest is the first half of the SHA-256 of what all of them hold.
func join(pieces []string) ([]byte, error) {
	if len(pieces) == 0 {
		return nil, fail(exitPayload, "there is no payload: %s0 is not set", variable)
	}
	bodies := map[int]string{}
	count, digest := 0, ""
	for _, piece := range pieces {
		parts := strings.SplitN(piece, ".", 5)
		if len(parts) != 5 {
			return nil, fail(exitPayload, "a piece of the payload has %d parts, not 5", len(parts))
		}
		if parts[0] != strconv.Itoa(payloads) {
			words := "the payload is not of version %d: the helper's image and the provider are of different podbridges"
			return nil, fail(exitPayload, words, payloads)
		}
		index, err := strconv.Atoi(parts[1])
		all, also := strconv.Atoi(parts[2])
		if err != nil || also != nil || index < 0 || index >= all || all > maxPieces {
			return nil, fail(exitPayload, "a piece of the payload has no number that can be")
		}
		if count == 0 {
			count, digest = all, parts[3]
		}
		if all != count || parts[3] != digest {
			return nil, fail(exitPayload, "the payload's pieces are not of one payload")
		}
		if _, twice := bodies[index]; twice {
			return nil, fail(exitPayload, "piece %d of the payload is there twice", index)
		}
		bodies[index] = parts[4]
	}
	var packed bytes.Buffer
	for index := range count {
		body, there := bodies[index]
		if !there {
			return nil, fail(exitPayload, "piece %d of %d of the payload is missing", index, count)
		}
		data, err := base64.StdEncoding.Strict().DecodeString(body)
		if err != nil {
			return nil, fail(exitPayload, "piece %d of the payload is damaged: not base64", index)
		}
		packed.Write(data)
	}
	sum := sha256.Sum256(packed.Bytes())
	if hex.EncodeToString(sum[:16]) != digest {
		return nil, fail(exitPayload, "the payload is damaged: its digest is another")
	}
	return unpack(&packed)
}

func unpack(packed io.Reader) ([]byte, error) {
	reader, err := zlib.NewReader(packed)
	if err != nil {
		return nil, fail(exitPayload, "the payload is damaged: not compressed")
	}
	text, err := io.ReadAll(io.LimitReader(reader, maxPayload+1))
	if err != nil {
		return nil, fail(exitPayload, "the payload is damaged: %v", err)
	}
	if len(text) > maxPayload {
		return nil, fail(exitPayload, "the payload is larger than %d bytes", maxPayload)
	}
	return text, nil
}

// piecesIn splits an environment into the payload's pieces and everything else.
func piecesIn(environment []string) (pieces, rest []string) {
	for _, one := range environment {
		name, value, _ := strings.Cut(one, "=")
		if strings.HasPrefix(name, variable) {
			// A place where variables stay after a pod may hold empty ones.
			if value != "" {
				pieces = append(pieces, value)
			}
		} else {
			rest = append(rest, one)
		}
	}
	return pieces, rest
}

func piecesOf(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fail(exitPayload, "the payload cannot be read: %s", plain(err))
	}
	return strings.Fields(string(data)), nil
}

// plain is an error without the operation's name: "/x: no such file or directory".
func plain(err error) string {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Path + ": " + at.Err.Error()
	}
	return err.Error()
}

// Payload is what one call of the helper is to do. bridge/helper/payload.py writes it.
type Payload struct {
	Kind      string     `json:"kind"`
	Folder    string     `json:"folder"`  // of the board
	Program   string     `json:"program"` // where `install` puts the helper; others only read there
	Key       []byte     `json:"key"`
	Pod       Pod        `json:"pod"`
	Trees     []Tree     `json:"trees"`
	Container *Container `json:"container"`
	Tunnel    *Tunnel    `json:"tunnel"`
}

// Tunnel is where the provider is, how it is known, and how this pod is: all but the address PEM.
type Tunnel struct {
	Address    string `json:"address"`
	ServerName string `json:"server_name"`
	CA         string `json:"ca"`
	Cert       string `json:"cert"`
	Key        string `json:"key"`
}

// Pod is what every helper of a pod knows of it. Times are seconds, those `_at` since the epoch.
type Pod struct {
	UID        string   `json:"uid"`
	Attempt    int      `json:"attempt"`
	Containers []Peer   `json:"containers"`
	Grace      float64  `json:"grace"`
	DeadlineAt *float64 `json:"deadline_at"`
	HardStop   *float64 `json:"hard_stop"`
	PeerWait   float64  `json:"peer_wait"`
}

// Peer is one container of the pod, in the order of starts.
type Peer struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	Opens bool   `json:"opens"` // it has a post-start hook: the main containers behind it wait for that
}

// Roles, as in bridge/workload.py.
const (
	roleInit    = "init"
	roleSidecar = "sidecar"
	roleMain    = "main"
)

// Container is what `run` does.
type Container struct {
	Name            string     `json:"name"`
	Role            string     `json:"role"`
	Argv            []string   `json:"argv"`
	Env             [][]string `json:"env"`
	WorkingDir      string     `json:"working_dir"`
	User            *uint32    `json:"user"`
	Group           *uint32    `json:"group"`
	Groups          []uint32   `json:"groups"`
	NoNewPrivileges bool       `json:"no_new_privileges"`
	RestartPolicy   string     `json:"restart_policy"`
	RestartRules    []Rule     `json:"restart_rules"`
	Backoff         Backoff    `json:"backoff"`
	MessagePath     string     `json:"message_path"`
	LogsAsMessage   bool       `json:"logs_as_message"`
	StopSignal      string     `json:"stop_signal"`
	Stdin           bool       `json:"stdin"`
	StdinOnce       bool       `json:"stdin_once"`
	Tty             bool       `json:"tty"`
	StartupProbe    *Probe     `json:"startup_probe"`
	LivenessProbe   *Probe     `json:"liveness_probe"`
	ReadinessProbe  *Probe     `json:"readiness_probe"`
	PostStart       *Action    `json:"post_start"`
	PreStop         *Action    `json:"pre_stop"`
	Address         string     `json:"address"`
	HostAddresses   []string   `json:"host_addresses"`
	Barrier         bool       `json:"barrier"`
	Record          bool       `json:"record"`
}

// fillIn puts the pod's addresses in the place of their markers (LATE in bridge/workload.py). Where
// the payload names no host, the pod is its own.
func (c *Container) fillIn(pod []string) {
	if c.Address != "" {
		pod = []string{c.Address}
	}
	host := c.HostAddresses
	if len(host) == 0 {
		host = pod
	}
	replacer := strings.NewReplacer(
		lateMarker("podIP"), pod[0], lateMarker("podIPs"), strings.Join(pod, ","),
		lateMarker("hostIP"), host[0], lateMarker("hostIPs"), strings.Join(host, ","),
	)
	for i := range c.Argv {
		c.Argv[i] = replacer.Replace(c.Argv[i])
	}
	for _, pair := range c.Env {
		for i := range pair[1:] {
			pair[1+i] = replacer.Replace(pair[1+i])
		}
	}
}

func lateMarker(name string) string { return "\x1apodbridge:" + name + "\x1a" }

// Probe is as in bridge/workload.py.
type Probe struct {
	Action           Action   `json:"action"`
	InitialDelay     float64  `json:"initial_delay"`
	Period           float64  `json:"period"`
	Timeout          float64  `json:"timeout"`
	SuccessThreshold int      `json:"success_threshold"`
	FailureThreshold int      `json:"failure_threshold"`
	Grace            *float64 `json:"grace"`
}

// Action is one of exec, http, tcp, grpc and sleep.
type Action struct {
	Kind    string     `json:"kind"`
	Command []string   `json:"command"`
	Port    int        `json:"port"`
	Path    string     `json:"path"`
	Scheme  string     `json:"scheme"`
	Headers [][]string `json:"headers"`
	Service string     `json:"service"`
	Seconds float64    `json:"seconds"`
}

// Tree is files below one folder.
type Tree struct {
	Root  string `json:"root"`
	Files []File `json:"files"`
	// All of it is replaced at once, as the kubelet does with volumes.
	Atomic bool `json:"atomic"`
	// Mode of the folders that are made, and who owns all of it; nil: whoever runs the helper.
	FolderMode uint32  `json:"folder_mode"`
	User       *uint32 `json:"user"`
	Group      *uint32 `json:"group"`
}

// File is one file of a tree.
type File struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"`
	Content []byte `json:"content"`
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// parsePayload reads what `join` gave, and refuses what it cannot be sure of.
func parsePayload(text []byte, verb string) (*Payload, error) {
	made := &Payload{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(made); err != nil {
		return nil, fail(exitPayload, "the payload cannot be understood: %s", jsonWords(err))
	}
	if made.Kind != verb {
		return nil, fail(exitPayload, "the payload is for %q, not for %q", made.Kind, verb)
	}
	if !path.IsAbs(made.Folder) {
		return nil, fail(exitPayload, "payload: folder: %q is not absolute", made.Folder)
	}
	if verb == "install" && !path.IsAbs(made.Program) {
		return nil, fail(exitPayload, "payload: program: %q is not absolute", made.Program)
	}
	if len(made.Key) < 32 {
		return nil, fail(exitPayload, "payload: key: %d bytes are fewer than 32", len(made.Key))
	}
	names := map[string]string{}
	for _, one := range made.Pod.Containers {
		if !label.MatchString(one.Name) || names[one.Name] != "" {
			return nil, fail(exitPayload, "payload: pod.containers: %q is no name, or is there twice", one.Name)
		}
		if one.Role != roleInit && one.Role != roleSidecar && one.Role != roleMain {
			return nil, fail(exitPayload, "payload: pod.containers: %q is no role", one.Role)
		}
		names[one.Name] = one.Role
	}
	if !slices.ContainsFunc(made.Pod.Containers, func(one Peer) bool { return one.Role == roleMain }) {
		return nil, fail(exitPayload, "payload: pod.containers: none is a main container")
	}
	if made.Pod.Grace < 0 || made.Pod.PeerWait <= 0 || !isFinite(made.Pod.Grace) {
		return nil, fail(exitPayload, "payload: pod: grace and peer_wait must be positive")
	}
	for _, tree := range made.Trees {
		if err := checkTree(tree); err != nil {
			return nil, err
		}
	}
	if made.Tunnel != nil {
		if _, err := configOf(made.Tunnel); err != nil {
			return nil, err
		}
	}
	if verb != "run" {
		return made, nil
	}
	if made.Container == nil {
		return nil, fail(exitPayload, "payload: container: there is none")
	}
	if role := names[made.Container.Name]; role == "" || role != made.Container.Role {
		return nil, fail(exitPayload, "payload: container: %q is not in pod.containers", made.Container.Name)
	}
	return made, checkContainer(made.Container)
}

// jsonWords keeps values of the payload out of the message: they may be secret.
func jsonWords(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return kind.Field + ": of the wrong type"
	}
	if strings.HasPrefix(err.Error(), "json: unknown field") {
		return err.Error()
	}
	return "not JSON"
}

func isFinite(number float64) bool { return !math.IsInf(number, 0) && !math.IsNaN(number) }

func checkTree(tree Tree) error {
	if !path.IsAbs(tree.Root) {
		return fail(exitPayload, "payload: trees: root %q is not absolute", tree.Root)
	}
	for _, one := range tree.Files {
		if one.Path == "" || path.IsAbs(one.Path) || path.Clean(one.Path) != one.Path ||
			one.Path == "." || one.Path == ".." || strings.HasPrefix(one.Path, "../") || strings.ContainsRune(one.Path, 0) ||
			tree.Atomic && strings.HasPrefix(one.Path, "..") {
			return fail(exitPayload, "payload: trees: %q is no path of a file", one.Path)
		}
	}
	return nil
}

func checkContainer(one *Container) error {
	switch one.RestartPolicy {
	case "Always", "OnFailure", "Never":
	default:
		return fail(exitPayload, "payload: container.restart_policy: %q", one.RestartPolicy)
	}
	if _, err := signalOf(one.StopSignal); err != nil {
		return err
	}
	for _, pair := range one.Env {
		if len(pair) != 2 || pair[0] == "" || strings.ContainsAny(pair[0], "=\x00") || strings.ContainsRune(pair[1], 0) {
			return fail(exitPayload, "payload: container.env: not a name and a value")
		}
	}
	for _, probe := range []*Probe{one.StartupProbe, one.LivenessProbe, one.ReadinessProbe} {
		if probe != nil && (probe.Period <= 0 || probe.Timeout <= 0 || probe.SuccessThreshold < 1 || probe.FailureThreshold < 1) {
			return fail(exitPayload, "payload: container: a probe's period, timeout and thresholds must be positive")
		}
	}
	return nil
}

// signals that a pod may name as its stop signal, besides those by number ("RTMIN+3" is 37).
var signals = map[string]syscall.Signal{
	"": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT,
	"SIGHUP": syscall.SIGHUP, "SIGKILL": syscall.SIGKILL, "SIGUSR1": syscall.SIGUSR1,
	"SIGUSR2": syscall.SIGUSR2, "SIGWINCH": syscall.SIGWINCH, "SIGABRT": syscall.SIGABRT,
	"SIGALRM": syscall.SIGALRM, "SIGCONT": syscall.SIGCONT, "SIGPIPE": syscall.SIGPIPE,
	"SIGSTOP": syscall.SIGSTOP, "SIGTSTP": syscall.SIGTSTP, "SIGPWR": syscall.SIGPWR, "SIGIO": syscall.SIGIO,
}

func signalOf(name string) (syscall.Signal, error) {
	if known, there := signals[name]; there {
		return known, nil
	}
	if rest, found := strings.CutPrefix(name, "SIGRTMIN"); found {
		offset, err := strconv.Atoi(strings.TrimPrefix(rest, "+"))
		if rest == "" {
			offset, err = 0, nil
		}
		if err == nil && offset >= 0 && offset <= 30 {
			return syscall.Signal(34 + offset), nil
		}
	}
	return 0, fail(exitPayload, "payload: container.stop_signal: %q is no signal", name)
}
