// Command goclient drives a server of exec and port-forward with client-go, as kubectl and the API
// server do, and prints what it saw as JSON.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var (
	address   = flag.String("url", "", "what to call")
	authority = flag.String("ca", "", "file of the certificate authority")
	via       = flag.String("via", "spdy", "spdy or websocket")
	protocols = flag.String("protocols", "", "protocols to offer, instead of client-go's own")
	stdin     = flag.Int("stdin", -1, "bytes of stdin; below 0 there is none")
	whole     = flag.Bool("whole", false, "stdin is written in one piece")
	open      = flag.Bool("open", false, "stdin has no end")
	stderr    = flag.Bool("stderr", false, "take stderr too")
	tty       = flag.Bool("tty", false, "as a terminal")
	sizes     = flag.String("sizes", "", "sizes of the terminal, as 80x24,100x30")
	enough    = flag.Int64("enough", -1, "bytes of stdout after which the client goes away")
	within    = flag.Duration("within", time.Minute, "how long it may take")
	count     = flag.Int("connections", 1, "connections of a port-forward, all at once")
	size      = flag.Int("bytes", 1, "bytes through each connection, both ways")
	port      = flag.Int("port", 8080, "the pod's port")
)

func main() {
	flag.Parse()
	config := &rest.Config{Host: *address, TLSClientConfig: rest.TLSClientConfig{CAFile: *authority}}
	target, err := url.Parse(*address)
	var result any
	if err == nil {
		if flag.Arg(0) == "forward" {
			result, err = forward(config, target)
		} else {
			result, err = run(config, target)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// A taker counts and hashes what it gets, and keeps the beginning.
type taker struct {
	Bytes  int64
	SHA256 string
	Text   string
	hash   hash.Hash
	enough func()
}

func newTaker() *taker { return &taker{hash: sha256.New()} }

func (t *taker) Write(content []byte) (int, error) {
	t.Bytes += int64(len(content))
	t.hash.Write(content)
	if room := 4096 - len(t.Text); room > 0 {
		t.Text += string(content[:min(room, len(content))])
	}
	if t.enough != nil && *enough >= 0 && t.Bytes >= *enough {
		t.enough()
	}
	return len(content), nil
}

func (t *taker) done() *taker {
	t.SHA256 = hex.EncodeToString(t.hash.Sum(nil))
	return t
}

// Only a Reader: io.Copy must not find a WriteTo that sends all in one piece.
type reader struct{ io.Reader }

type queue chan remotecommand.TerminalSize

func (q queue) Next() *remotecommand.TerminalSize {
	if next, ok := <-q; ok {
		return &next
	}
	return nil
}

func executor(config *rest.Config, target *url.URL) (remotecommand.Executor, error) {
	offered := strings.FieldsFunc(*protocols, func(r rune) bool { return r == ',' })
	if *via == "websocket" {
		if len(offered) > 0 {
			return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", target.String(), offered...)
		}
		return remotecommand.NewWebSocketExecutor(config, "GET", target.String())
	}
	if len(offered) > 0 {
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", target, offered...)
	}
	return remotecommand.NewSPDYExecutor(config, "POST", target)
}

func run(config *rest.Config, target *url.URL) (any, error) {
	runner, err := executor(config, target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	out, errs := newTaker(), newTaker()
	out.enough = cancel
	options := remotecommand.StreamOptions{Stdout: out, Tty: *tty}
	if *stderr {
		options.Stderr = errs
	}
	sent := sha256.New()
	if *stdin >= 0 {
		content := make([]byte, *stdin)
		rand.New(rand.NewSource(1)).Read(content)
		sent.Write(content)
		var input io.Reader = bytes.NewReader(content)
		if !*whole {
			input = reader{input}
		}
		if *open {
			end, _ := io.Pipe()
			input = reader{io.MultiReader(input, end)}
		}
		options.Stdin = input
	}
	if *sizes != "" {
		waiting := make(queue, 16)
		for _, text := range strings.Split(*sizes, ",") {
			var next remotecommand.TerminalSize
			fmt.Sscanf(text, "%dx%d", &next.Width, &next.Height)
			waiting <- next
		}
		options.TerminalSizeQueue = waiting
	}
	failure := runner.StreamWithContext(ctx, options)
	code, message := 0, ""
	if failure != nil {
		code, message = -1, failure.Error()
		var exit exec.CodeExitError
		if errors.As(failure, &exit) {
			code = exit.Code
		}
	}
	return map[string]any{
		"stdout": out.done(), "stderr": errs.done(), "code": code, "error": message,
		"sent": hex.EncodeToString(sent.Sum(nil)),
	}, nil
}

func dialer(config *rest.Config, target *url.URL) (httpstream.Dialer, error) {
	if *via == "websocket" {
		return portforward.NewSPDYOverWebsocketDialer(target, config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", target), nil
}

func forward(config *rest.Config, target *url.URL) (any, error) {
	dial, err := dialer(config, target)
	if err != nil {
		return nil, err
	}
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.New(dial, []string{fmt.Sprintf("0:%d", *port)}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return nil, err
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return nil, err
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return nil, err
	}
	results := make([]string, *count)
	var all sync.WaitGroup
	for number := range *count {
		all.Add(1)
		go func() {
			defer all.Done()
			results[number] = exchange(int(ports[0].Local), int64(number))
		}()
	}
	all.Wait()
	close(stop)
	<-ended
	same, wrong := 0, []string{}
	for _, result := range results {
		if result == "" {
			same++
		} else {
			wrong = append(wrong, result)
		}
	}
	return map[string]any{"same": same, "wrong": wrong}, nil
}

// exchange sends bytes and wants the same ones back; it says what went wrong.
func exchange(local int, seed int64) string {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
	if err != nil {
		return err.Error()
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(*within))
	content := make([]byte, *size)
	rand.New(rand.NewSource(seed)).Read(content)
	go func() {
		connection.Write(content)
		connection.(*net.TCPConn).CloseWrite()
	}()
	back, err := io.ReadAll(connection)
	if err != nil {
		return err.Error()
	}
	if !bytes.Equal(back, content) {
		return fmt.Sprintf("%d bytes came back, of %d", len(back), len(content))
	}
	return ""
}
