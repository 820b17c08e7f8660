// Command provider-go is a provider of podbridge's contract in Go, small enough to read in one go
// and to start another one from. It runs a pod's containers as plain processes of this host.
//
//	main.go      flags, the gRPC server, the address
//	server.go    the contract's calls
//	pods.go      what every pod is, should be, and does next; what is durable of it
//	process.go   one run of a container: the process that keeps it
//	logs.go      its log, written and read
//	manifest.go  what of a v1.Pod is understood, ignored, refused; environment and command
//	watch.go     what WatchPods tells
//	errors.go    the contract's errors
package main

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

//go:generate make generate

const version = "provider-go 0.1"

// maxMessage is in bytes: a pod and its environment may be larger than gRPC's own 4 MiB.
const maxMessage = 16 * 1024 * 1024

// patience is how long a provider waits for the state folder of the one before.
const patience = 3 * time.Second

func main() {
	if len(os.Args) == 3 && os.Args[1] == "run-container" {
		os.Exit(runContainer(os.Args[2]))
	}
	address := flag.String("listen", "127.0.0.1:0", "`address`: unix:///path, or a loopback host:port")
	state := flag.String("state", "", "`folder` for what must outlive this process (required)")
	limit := flag.Int("pods", 110, "the most pods at a time")
	maxRun := flag.Duration("max-run", 24*time.Hour, "end each run after this time, whatever happens")
	flag.Parse()
	if *state == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*address, *state, *limit, *maxRun); err != nil {
		fmt.Fprintln(os.Stderr, "provider-go:", err)
		os.Exit(1)
	}
}

func serve(address, state string, limit int, maxRun time.Duration) error {
	state, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(state, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	// A little patience: one that was just killed takes a moment to be gone.
	give := time.Now().Add(patience)
	for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if time.Now().After(give) {
			return fmt.Errorf("another provider has the state folder %s", state)
		}
		time.Sleep(again)
	}
	listener, where, err := listen(address)
	if err != nil {
		return err
	}
	all, err := openPods(state, limit, maxRun)
	if err != nil {
		return err
	}
	made := grpc.NewServer(
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(streaming),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	)
	rpc.RegisterProviderServer(made, &server{pods: all})
	serving := health.NewServer()
	grpc_health_v1.RegisterHealthServer(made, serving)
	for _, name := range []string{"", rpc.Provider_ServiceDesc.ServiceName} {
		serving.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	reflection.Register(made)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		// Pods run on: the next provider with this state folder finds them.
		serving.Shutdown()
		made.Stop()
	}()
	fmt.Println("listening on", where)
	return made.Serve(listener)
}

// listen opens the address; it returns its name with the real port. Without TLS, which this example
// does not have, only this host may call.
func listen(address string) (net.Listener, string, error) {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		path = "/" + strings.TrimLeft(path, "/")
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			if probe, err := net.Dial("unix", path); err == nil {
				probe.Close()
				return nil, "", fmt.Errorf("%s: the address is in use", address)
			}
			// Left by a provider that was killed.
			os.Remove(path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, "", err
		}
		listener, err := net.Listen("unix", path)
		if err != nil {
			return nil, "", err
		}
		return listener, "unix://" + path, os.Chmod(path, 0o600)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, "", fmt.Errorf(
			"%s: this example has no TLS, so only a unix socket or a loopback address is allowed",
			address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", err
	}
	return listener, listener.Addr().String(), nil
}

func newEpoch() string {
	bytes := make([]byte, 16)
	rand.Read(bytes)
	return hex.EncodeToString(bytes)
}
