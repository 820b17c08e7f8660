package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"time"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

const (
	// piece is the most bytes of one message.
	piece = 32 * 1024
	// followEvery is how often a log that is followed is looked at.
	followEvery = 50 * time.Millisecond
	// timeLayout has nine digits and one zone, so that times order as text.
	timeLayout = "2006-01-02T15:04:05.000000000Z07:00"
)

// logWriter writes what a command says as the container runtimes do, one entry a line:
//
//	TIME stdout|stderr F|P CONTENT
//
// F ends a line of the command; P is a part of one, to which the stream's next entry belongs.
type logWriter struct {
	mu      sync.Mutex
	file    *os.File
	readers sync.WaitGroup
}

func newLogWriter(path string) (*logWriter, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &logWriter{file: file}, err
}

// pipe returns the end for the command to write to.
func (w *logWriter) pipe(stream string) (*os.File, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w.readers.Add(1)
	go func() {
		defer w.readers.Done()
		defer out.Close()
		block := make([]byte, piece)
		for {
			n, err := out.Read(block)
			w.write(stream, block[:n])
			if err != nil {
				return
			}
		}
	}()
	return in, nil
}

func (w *logWriter) write(stream string, content []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().UTC().Format(timeLayout)
	var entries bytes.Buffer
	for len(content) > 0 {
		line, rest, whole := bytes.Cut(content, []byte("\n"))
		tag := " P "
		if whole {
			tag = " F "
		}
		entries.WriteString(now + " " + stream + tag)
		entries.Write(line)
		entries.WriteByte('\n')
		content = rest
	}
	w.file.Write(entries.Bytes())
}

// finish returns once the last byte is in the file, or after some time, since a process that has
// escaped could hold its end open for ever.
func (w *logWriter) finish(atMost time.Duration) {
	done := make(chan struct{})
	go func() {
		w.readers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(atMost):
	}
	w.mu.Lock() // and never unlocked: nothing comes behind the end
	w.file.Sync()
}

// logReader is a place in a log, and what of it is wanted.
type logReader struct {
	file   *os.File
	stream string // "": both
	since  string
	times  bool
	limit  int64           // bytes that may still be sent; negative: any number
	open   map[string]bool // streams whose last entry was a part of a line
	offset int64
	send   func(*rpc.GetContainerLogsResponse) error
}

// sendLog sends a log, and with `follow` what comes until `done` is closed: then everything is in
// the file.
func sendLog(
	ctx context.Context, path string, request *rpc.GetContainerLogsRequest, done <-chan struct{},
	send func(*rpc.GetContainerLogsResponse) error,
) error {
	file, err := os.Open(path)
	if err != nil {
		return fail(notFound, "there is no such log")
	}
	defer file.Close()
	reader := &logReader{
		file: file, times: request.Timestamps, limit: -1, open: map[string]bool{}, send: send,
		stream: map[rpc.Stream]string{
			rpc.Stream_STREAM_STDOUT: "stdout", rpc.Stream_STREAM_STDERR: "stderr",
		}[request.Stream],
	}
	if request.SinceSeconds != nil {
		ago := time.Duration(*request.SinceSeconds) * time.Second
		reader.since = time.Now().Add(-ago).UTC().Format(timeLayout)
	} else if request.SinceTime != nil {
		reader.since = request.SinceTime.AsTime().UTC().Format(timeLayout)
	}
	if request.LimitBytes != nil {
		reader.limit = max(0, *request.LimitBytes)
	}
	if request.TailLines != nil {
		if err := reader.toTail(int(max(0, *request.TailLines))); err != nil {
			return err
		}
	}
	for {
		over := !request.Follow
		select {
		case <-done:
			over = true
		default:
		}
		if err := reader.read(); err != nil {
			return err
		}
		if over || reader.limit == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
		case <-time.After(followEvery):
		}
	}
}

// entries calls `found` for each entry that is whole in the file, from the place on where the last
// call ended; `start` is where it stands.
func (r *logReader) entries(found func(line []byte, start int64) error) error {
	if _, err := r.file.Seek(r.offset, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(r.file, 2*piece)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		start := r.offset
		r.offset += int64(len(line))
		if err := found(line[:len(line)-1], start); err != nil {
			return err
		}
	}
}

// parts splits an entry; ok is false where it is not wanted.
func (r *logReader) parts(line []byte) (at, stream string, whole bool, content []byte, ok bool) {
	split := bytes.SplitN(line, []byte(" "), 4)
	if len(split) != 4 {
		return "", "", false, nil, false
	}
	at, stream = string(split[0]), string(split[1])
	wanted := (r.stream == "" || r.stream == stream) && at >= r.since
	return at, stream, string(split[2]) == "F", split[3], wanted
}

// toTail moves to where the last so many lines begin.
func (r *logReader) toTail(lines int) error {
	var starts []int64
	open := map[string]bool{}
	err := r.entries(func(line []byte, start int64) error {
		_, stream, whole, _, ok := r.parts(line)
		if !ok {
			return nil
		}
		if !open[stream] {
			starts = append(starts, start)
			starts = starts[max(0, len(starts)-lines):]
		}
		open[stream] = !whole
		return nil
	})
	if len(starts) > 0 {
		r.offset = starts[0]
	}
	return err
}

// read sends what is in the file by now.
func (r *logReader) read() error {
	var text []byte
	flush := func(least int) error {
		for len(text) > least {
			now := text[:min(piece, len(text))]
			if r.limit >= 0 {
				now = now[:min(int64(len(now)), r.limit)]
				r.limit -= int64(len(now))
			}
			if len(now) == 0 {
				text = nil
				return nil
			}
			// A copy: gRPC may still read it when `text` is written again.
			content := bytes.Clone(now)
			if err := r.send(&rpc.GetContainerLogsResponse{Content: content}); err != nil {
				return err
			}
			text = text[len(now):]
		}
		return nil
	}
	err := r.entries(func(line []byte, _ int64) error {
		at, stream, whole, content, ok := r.parts(line)
		if !ok {
			return nil
		}
		if r.times && !r.open[stream] {
			text = append(text, at+" "...)
		}
		text = append(text, content...)
		if whole {
			text = append(text, '\n')
		}
		r.open[stream] = !whole
		return flush(piece)
	})
	if err != nil {
		return err
	}
	return flush(0)
}
