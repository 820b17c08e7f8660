package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// A session is a command, a container's own process or a connection that the provider is joined to.
// Each of its streams is a request of its own, so that none holds up another; it lives as long as
// the request that made it.

const (
	sessionsMax = 48
	settling    = time.Second // without a session, after which memory is given back
)

type session struct {
	outputs map[string]io.ReadCloser
	input   input // nil: it takes none
	resize  func(width, height uint16)
	// end waits for its end and gives its code; it is ended where ctx is done before.
	end func(ctx context.Context) int

	mutex  sync.Mutex
	taken  map[string]bool
	told   map[string]chan struct{} // closed when an output was told to its end
	closed chan struct{}
}

// input takes what is written until `over` is done.
type input interface {
	feed(from io.Reader, over <-chan struct{})
}

type sessions struct {
	mutex sync.Mutex
	open  map[string]*session
	none  chan struct{} // closed while there is none
}

func (s *sessions) register(mux *http.ServeMux) {
	s.open, s.none = map[string]*session{}, make(chan struct{})
	close(s.none)
	mux.HandleFunc("GET /sessions/{id}/outputs/{name}", s.tellOutput)
	mux.HandleFunc("PUT /sessions/{id}/input", s.takeInput)
	mux.HandleFunc("PUT /sessions/{id}/size", s.takeSize)
}

func (s *sessions) idle() <-chan struct{} {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.none
}

func (s *sessions) add(one *session) (string, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.open) >= sessionsMax {
		return "", false
	}
	if len(s.open) == 0 {
		s.none = make(chan struct{})
	}
	id := rand.Text()
	s.open[id] = one
	return id, true
}

func (s *sessions) remove(id string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if delete(s.open, id); len(s.open) == 0 {
		close(s.none)
		// What many sessions took would else stay the helper's for minutes.
		time.AfterFunc(settling, s.settle)
	}
}

func (s *sessions) settle() {
	select {
	case <-s.idle():
		debug.FreeOSMemory()
	default:
	}
}

func (s *sessions) find(w http.ResponseWriter, r *http.Request) *session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.open[r.PathValue("id")]
	if found == nil {
		refuse(w, http.StatusNotFound, "there is no such session")
	}
	return found
}

// hold makes a session and tells its end. It is made only where there is room for it.
func (s *sessions) hold(w http.ResponseWriter, r *http.Request, start func() (*session, error)) {
	one := &session{taken: map[string]bool{}, told: map[string]chan struct{}{}, closed: make(chan struct{})}
	id, room := s.add(one)
	if !room {
		answer(w, errTooMany)
		return
	}
	defer s.remove(id)
	made, err := start()
	if err != nil {
		answer(w, err)
		return
	}
	one.adopt(made)
	defer one.close()
	names := []string{}
	for name := range one.outputs {
		names = append(names, name)
	}
	say(w, map[string]any{"session": id, "outputs": names, "input": one.input != nil})
	code := one.end(r.Context())
	for _, told := range one.told {
		select {
		case <-told:
		case <-r.Context().Done():
			return
		}
	}
	say(w, map[string]int{"exit": code})
}

func (s *session) adopt(made *session) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.outputs, s.input, s.resize, s.end = made.outputs, made.input, made.resize, made.end
	for name := range s.outputs {
		s.told[name] = make(chan struct{})
	}
}

func (s *session) close() {
	close(s.closed)
	for _, one := range s.outputs {
		one.Close()
	}
}

// take gives a stream of a session to the first who asks for it.
func (s *session) take(name string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.taken[name] {
		return false
	}
	s.taken[name] = true
	return true
}

func (s *sessions) tellOutput(w http.ResponseWriter, r *http.Request) {
	one, name := s.find(w, r), r.PathValue("name")
	if one == nil {
		return
	}
	output, there := one.outputs[name]
	if !there || !one.take(name) {
		refuse(w, http.StatusNotFound, "there is no such output, or somebody has it")
		return
	}
	defer close(one.told[name])
	stop := context.AfterFunc(r.Context(), func() { output.Close() })
	defer stop()
	flush(w)
	space := make([]byte, pieceSize)
	for {
		count, err := output.Read(space)
		if count > 0 {
			if _, failed := w.Write(space[:count]); failed != nil {
				return
			}
			flush(w)
		}
		if errors.Is(err, errTooSlow) || errors.Is(err, errBroken) {
			// An end that is none: the provider must not take it for a whole output.
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			return
		}
	}
}

func (s *sessions) takeInput(w http.ResponseWriter, r *http.Request) {
	one := s.find(w, r)
	if one == nil {
		return
	}
	if one.input == nil || !one.take("") {
		refuse(w, http.StatusNotFound, "there is no input, or somebody has it")
		return
	}
	one.input.feed(r.Body, one.closed)
	// What a process that has closed its input does not want is dropped.
	_, _ = io.Copy(io.Discard, r.Body)
	answer(w, nil)
}

func (s *sessions) takeSize(w http.ResponseWriter, r *http.Request) {
	one := s.find(w, r)
	if one == nil {
		return
	}
	var asked struct {
		Width  uint16 `json:"width"`
		Height uint16 `json:"height"`
	}
	if !understood(w, r, longestAsk, &asked) {
		return
	}
	if one.resize != nil {
		one.resize(asked.Width, asked.Height)
	}
	answer(w, nil)
}

// fileInput is a pipe to a process, or its terminal. `shut` says what the end of it means.
type fileInput struct {
	file *os.File
	shut func()
}

// inputPatience is how soon somebody notices that the session is over who waits for a process that
// does not read.
const inputPatience = 500 * time.Millisecond

func (i fileInput) feed(from io.Reader, over <-chan struct{}) {
	defer i.shut()
	space := make([]byte, pieceSize)
	for {
		count, err := from.Read(space)
		for left := space[:count]; len(left) > 0; {
			// The file may be several sessions': none may close it, or stop the others' writes.
			_ = i.file.SetWriteDeadline(time.Now().Add(inputPatience))
			written, failed := i.file.Write(left)
			left = left[written:]
			if failed != nil && !errors.Is(failed, os.ErrDeadlineExceeded) {
				return
			}
			select {
			case <-over:
				return
			default:
			}
		}
		if err != nil {
			return
		}
	}
}
