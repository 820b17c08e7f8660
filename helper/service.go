package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	longestAsk   = 4 << 20    // bytes of a request that has a command: what a kernel takes, and more
	longestFiles = maxPayload // and of one that has files
)

// service is what the provider may ask of a helper, in `run` and in `watch`.
type service struct {
	mux      *http.ServeMux
	sessions sessions
	states   feed
	end      feed // is told something once: that the helper leaves
	placing  sync.Mutex
}

// introduction is who a helper is. The pod is that of its certificate.
type introduction struct {
	Version   int    `json:"version"`
	Role      string `json:"role"`
	Container string `json:"container"`
	States    bool   `json:"states"` // it speaks for the pod
}

// newService answers what both have: who it is, its states, an order to stop, files.
func newService(who introduction, stop func(ctx context.Context, grace float64) error) *service {
	made := &service{mux: http.NewServeMux()}
	made.states.init()
	made.end.init()
	who.Version = version
	made.mux.HandleFunc("GET /introduction", func(w http.ResponseWriter, _ *http.Request) { say(w, who) })
	made.mux.HandleFunc("GET /states", made.states.serve)
	made.mux.HandleFunc("GET /end", made.end.serve)
	made.mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Grace *float64 `json:"grace"`
		}
		if !understood(w, r, longestAsk, &asked) {
			return
		}
		if asked.Grace == nil || *asked.Grace < 0 {
			refuse(w, http.StatusUnprocessableEntity, "grace: not a number of seconds")
			return
		}
		answer(w, stop(r.Context(), *asked.Grace))
	})
	made.mux.HandleFunc("PUT /files", made.replaceFiles)
	made.sessions.register(made.mux)
	return made
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// drain waits until nobody reads any more, for at most `limit`.
func (s *service) drain(limit time.Duration) {
	until := time.After(limit)
	for _, idle := range []func() <-chan struct{}{s.sessions.idle, s.states.idle} {
		select {
		case <-idle():
		case <-until:
			return
		}
	}
}

// tell has the states told to who hears them; the last time with `over`.
func (s *service) tell(states Record, over bool) {
	text, err := json.Marshal(states)
	if err == nil {
		s.states.set(text, over)
	}
}

func (s *service) replaceFiles(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Trees []Tree `json:"trees"`
	}
	if !understood(w, r, longestFiles, &asked) {
		return
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	for _, tree := range asked.Trees {
		err := checkTree(tree)
		if err == nil {
			err = place(tree)
		}
		if err != nil {
			answer(w, err)
			return
		}
	}
	answer(w, nil)
}

// refusal is an error with the status that says what the provider makes of it.
type refusal struct {
	status int
	words  string
}

func (r *refusal) Error() string { return r.words }

var (
	errNotRunning = &refusal{http.StatusNotFound, "the container does not run"}
	errTooMany    = &refusal{http.StatusTooManyRequests, "too many sessions"}
)

func unprocessable(err error) error {
	return &refusal{http.StatusUnprocessableEntity, err.Error()}
}

// answer says that it was done, or why it was not.
func answer(w http.ResponseWriter, err error) {
	var known *refusal
	switch {
	case err == nil:
		say(w, struct{}{})
	case errors.As(err, &known):
		refuse(w, known.status, known.words)
	default:
		refuse(w, http.StatusUnprocessableEntity, err.Error())
	}
}

func refuse(w http.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	say(w, map[string]string{"error": words})
}

// say writes one line, and sees to it that it goes now.
func say(w http.ResponseWriter, what any) {
	text, err := json.Marshal(what)
	if err == nil {
		_, _ = w.Write(append(text, '\n'))
		flush(w)
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// understood reads a request; where it has no meaning it says so and gives false.
func understood(w http.ResponseWriter, r *http.Request, limit int64, into any) bool {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		err = decoder.Decode(into)
	}
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, "the request cannot be understood: "+jsonWords(err))
	}
	return err == nil
}

// feed is a text that changes, and who waits for its changes. Only the newest counts.
type feed struct {
	mutex   sync.Mutex
	text    []byte
	over    bool
	changed chan struct{}
	readers int
	none    chan struct{} // closed while nobody reads
}

func (f *feed) init() {
	f.changed, f.none = make(chan struct{}), make(chan struct{})
	close(f.none)
}

// set says whether somebody reads it.
func (f *feed) set(text []byte, over bool) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.text, f.over = text, over
	close(f.changed)
	f.changed = make(chan struct{})
	return f.readers > 0
}

func (f *feed) now() ([]byte, bool, <-chan struct{}) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.text[:len(f.text):len(f.text)], f.over, f.changed
}

func (f *feed) enter() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.readers == 0 {
		f.none = make(chan struct{})
	}
	f.readers++
}

func (f *feed) leave() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.readers--; f.readers == 0 {
		close(f.none)
	}
}

func (f *feed) idle() <-chan struct{} {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.none
}

// serve tells the text, a line each time that it changes.
func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	f.enter()
	defer f.leave()
	for {
		text, over, changed := f.now()
		if len(text) > 0 {
			if _, err := w.Write(append(text, '\n')); err != nil {
				return
			}
			flush(w)
		}
		if over {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
