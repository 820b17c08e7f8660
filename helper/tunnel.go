package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// The tunnel is one connection that the helper makes to the provider, because nothing can connect
// to a container of most clouds. After the handshake the roles turn: the helper is the server.

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
	dialing    = 10 * time.Second // that a connection and its handshake may take
	settled    = 10 * time.Second // after which a connection counts as one that was good
	quietFor   = 10 * time.Second // without a word, after which the peer is asked for one
	answering  = 15 * time.Second // that the answer may take
	farewell   = 2 * time.Second  // what a leaving helper waits for those who still read, and for its goodbye

	streamBuffer = 64 << 10 // bytes of one request that nobody has taken yet
	streamsMax   = 256
	// More than all sessions' inputs can leave lying: a request beside them is never held up.
	connectionBuffer = (sessionsMax + 16) * streamBuffer
)

// tunnel keeps a connection to the provider, as long as there is one to be had. Whatever becomes
// of it, the container's work goes on.
type tunnel struct {
	address string
	config  *tls.Config
	service *service
	cancel  context.CancelFunc
	gone    chan struct{} // closed when there is no connection any more, nor will be
}

// newTunnel is nil where the payload has none.
func newTunnel(one *Tunnel, service *service) (*tunnel, error) {
	if one == nil {
		return nil, nil
	}
	config, err := configOf(one)
	if err != nil {
		return nil, err
	}
	return &tunnel{address: one.Address, config: config, service: service}, nil
}

func configOf(one *Tunnel) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(one.Cert), []byte(one.Key))
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM([]byte(one.CA)) {
		return nil, fail(exitPayload, "payload: tunnel: not a certificate and its key")
	}
	if _, _, err := net.SplitHostPort(one.Address); err != nil || one.ServerName == "" {
		return nil, fail(exitPayload, "payload: tunnel: not an address and a server's name")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		RootCAs: roots, ServerName: one.ServerName, Certificates: []tls.Certificate{pair},
	}, nil
}

// open begins to connect; it does so until `close`.
func (t *tunnel) open() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.gone = make(chan struct{})
	go func() { defer close(t.gone); t.keep(ctx) }()
}

// close lets those who still read come to their end, for a moment, and then lets go.
func (t *tunnel) close() {
	if t == nil {
		return
	}
	t.service.drain(farewell)
	t.cancel()
	// A provider that hangs holds up nobody's exit.
	select {
	case <-t.gone:
	case <-time.After(farewell):
	}
}

func (t *tunnel) keep(ctx context.Context) {
	wait := firstRetry
	for {
		began := time.Now()
		if connection, err := t.dial(ctx); err == nil {
			t.serve(ctx, connection)
			if time.Since(began) > settled {
				wait = firstRetry
			}
		}
		// Half of it by chance: the helpers of a provider that was away do not all come at once.
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

func (t *tunnel) dial(ctx context.Context) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialing)
	defer cancel()
	dialer := tls.Dialer{Config: t.config}
	connection, err := dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	return connection.(*tls.Conn), nil
}

// serve answers what the provider asks until the connection ends.
func (t *tunnel) serve(ctx context.Context, connection *tls.Conn) {
	ended := make(chan struct{})
	server := &http.Server{
		Handler:        t.service,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streamsMax,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerStream:     streamBuffer,
			MaxReceiveBufferPerConnection: connectionBuffer,
			SendPingTimeout:               quietFor,
			PingTimeout:                   answering,
			WriteByteTimeout:              quietFor + answering,
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				close(ended)
			}
		},
	}
	listener := &single{connection: connection, ended: ended}
	stop := context.AfterFunc(ctx, func() {
		// Behind all that was said before; the provider then ends the connection.
		if t.service.end.set([]byte("{}"), true) {
			select {
			case <-ended:
			case <-time.After(farewell):
			}
		}
		server.Close()
	})
	defer stop()
	_ = server.Serve(listener)
	connection.Close()
}

// single is a listener with one connection, which is there already.
type single struct {
	connection net.Conn
	taken      bool
	ended      <-chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if !s.taken {
		s.taken = true
		return s.connection, nil
	}
	<-s.ended
	return nil, io.EOF
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return s.connection.LocalAddr() }
