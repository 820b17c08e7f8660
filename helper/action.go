package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	agentVersion = "1.36"   // the Kubernetes version that a request names
	longestBody  = 10 << 10 // bytes that are read of an answer or output (maxRespBodyLength)
	redirectsMax = 10
)

// outcome is what came of an action. `known` is false where it could not be tried: that says
// nothing of the container.
type outcome struct {
	good, known bool
	words       string
}

// actor runs probes' and hooks' actions in one container.
type actor struct {
	shell   *shell
	address string
}

func newActor(shell *shell, address string) *actor {
	if address == "" {
		address = ownAddress()
	}
	return &actor{shell, address}
}

// ownAddress is the pod's first address that is not loopback: where the kubelet would ask.
func ownAddress() string { return ownAddresses()[0] }

// ownAddresses are all of them; loopback where there is none.
func ownAddresses() []string {
	var own []string
	found, _ := net.InterfaceAddrs()
	for _, one := range found {
		if is, ok := one.(*net.IPNet); ok && is.IP.IsGlobalUnicast() {
			own = append(own, is.IP.String())
		}
	}
	if own == nil {
		return []string{"127.0.0.1"}
	}
	return own
}

func (a *actor) probe(ctx context.Context, probe *Probe) outcome {
	ctx, cancel := context.WithTimeout(ctx, seconds(probe.Timeout))
	defer cancel()
	switch probe.Action.Kind {
	case "exec":
		return a.exec(ctx, probe.Action.Command, probe.Timeout)
	case "http":
		return a.http(ctx, probe.Action, "kube-probe")
	case "tcp":
		return a.tcp(ctx, probe.Action.Port)
	case "grpc":
		return a.grpc(ctx, probe.Action)
	}
	return outcome{words: "not an action of a probe"}
}

// hook runs a hook's action to its end. Any answer to an HTTP request is a good one.
func (a *actor) hook(ctx context.Context, action Action) bool {
	switch action.Kind {
	case "exec":
		found := a.exec(ctx, action.Command, 0)
		return found.good && found.known
	case "http":
		_, err := a.get(ctx, action, "kube-lifecycle")
		if err != nil && strings.Contains(err.Error(), "HTTP response to HTTPS client") {
			action.Scheme = "HTTP"
			action.Headers = withoutAuthorization(action.Headers)
			_, err = a.get(ctx, action, "kube-lifecycle")
		}
		return err == nil
	case "sleep":
		select {
		case <-time.After(seconds(action.Seconds)):
			return true
		case <-ctx.Done():
			return false
		}
	}
	return false
}

func withoutAuthorization(headers [][]string) [][]string {
	var kept [][]string
	for _, pair := range headers {
		if len(pair) == 2 && !strings.EqualFold(pair[0], "Authorization") {
			kept = append(kept, pair)
		}
	}
	return kept
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

func (a *actor) exec(ctx context.Context, argv []string, limit float64) outcome {
	read, write, err := os.Pipe()
	if err != nil {
		return outcome{words: err.Error()}
	}
	defer read.Close()
	pid, end, err := a.shell.start(argv, [3]*os.File{a.shell.null, write, write}, false)
	write.Close()
	if err != nil {
		return outcome{words: err.Error()}
	}
	said := make(chan []byte, 1)
	go func() {
		kept, _ := io.ReadAll(io.LimitReader(read, longestBody))
		said <- kept
		_, _ = io.Copy(io.Discard, read)
	}()
	select {
	case status := <-end:
		// What it left in the background may hold the pipe: the answer does not wait for that.
		var words []byte
		select {
		case words = <-said:
		case <-time.After(100 * time.Millisecond):
		}
		return outcome{good: status.Exited() && status.ExitStatus() == 0, known: true, words: clean(words)}
	case <-ctx.Done():
		a.shell.family.kill(pid, syscall.SIGKILL, true)
		return outcome{known: true, words: fmt.Sprintf("command timed out after %gs", limit)}
	}
}

func (a *actor) tcp(ctx context.Context, port int) outcome {
	var dialer net.Dialer
	where := net.JoinHostPort(a.address, strconv.Itoa(port))
	connection, err := dialer.DialContext(ctx, "tcp", where)
	if err != nil {
		return outcome{known: true, words: err.Error()}
	}
	connection.Close()
	return outcome{good: true, known: true}
}

func (a *actor) http(ctx context.Context, action Action, agent string) outcome {
	status, err := a.get(ctx, action, agent)
	if err != nil {
		return outcome{known: true, words: err.Error()}
	}
	if status < 200 || status >= 400 {
		return outcome{known: true, words: fmt.Sprintf("HTTP probe failed with statuscode: %d", status)}
	}
	return outcome{good: true, known: true}
}

// get asks by GET. Redirects are followed as long as they name the same host; certificates are not
// verified, as the kubelet has it.
func (a *actor) get(ctx context.Context, action Action, agent string) (int, error) {
	path := action.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	where, err := url.Parse(strings.ToLower(action.Scheme) + "://" + net.JoinHostPort(a.address, strconv.Itoa(action.Port)) + path)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("User-Agent", agent+"/"+agentVersion)
	request.Header.Set("Accept", "*/*")
	for _, pair := range action.Headers {
		if len(pair) != 2 {
			continue
		}
		if strings.EqualFold(pair[0], "Host") {
			request.Host = pair[1]
		} else {
			request.Header.Add(pair[0], pair[1])
		}
	}
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if next.URL.Hostname() != before[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(before) >= redirectsMax {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, longestBody))
	return answer.StatusCode, nil
}

// grpc asks grpc.health.v1.Health/Check, as one call of HTTP/2 in plain text.
func (a *actor) grpc(ctx context.Context, action Action) outcome {
	bad := func(words string) outcome { return outcome{known: true, words: words} }
	where := net.JoinHostPort(a.address, strconv.Itoa(action.Port))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+where+"/grpc.health.v1.Health/Check", bytes.NewReader(healthQuestion(action.Service)))
	if err != nil {
		return bad(err.Error())
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	request.Header.Set("User-Agent", "kube-probe/"+agentVersion)
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &only}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return bad(fmt.Sprintf("failed to connect service at %q: %v", where, err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, longestBody))
	if err != nil {
		return bad(err.Error())
	}
	code := answer.Trailer.Get("Grpc-Status")
	if code == "" {
		// An answer without a message has only its head.
		code = answer.Header.Get("Grpc-Status")
	}
	if answer.StatusCode != http.StatusOK || code != "0" {
		return bad(fmt.Sprintf("health rpc probe failed: status %d, grpc-status %q", answer.StatusCode, code))
	}
	if serving := healthAnswer(body); serving != 1 {
		return bad(fmt.Sprintf("service unhealthy (responded with status %d)", serving))
	}
	return outcome{good: true, known: true}
}

// healthQuestion is a HealthCheckRequest in gRPC's frame: field 1 of it is the service's name.
func healthQuestion(service string) []byte {
	message := []byte{}
	if service != "" {
		message = append(message, 0x0a)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// healthAnswer is a HealthCheckResponse's status, which is field 1; SERVING is 1, absent is 0.
func healthAnswer(frame []byte) uint64 {
	if len(frame) < 7 || frame[0] != 0 || frame[5] != 0x08 {
		return 0
	}
	status, _ := binary.Uvarint(frame[6:])
	return status
}
