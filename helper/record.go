package main

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	marker          = "podbridge-record/1"
	longestRecord   = 16 << 10 // bytes of all lines: the shortest log that a cloud keeps
	longestLine     = 4000     // characters of base64 in a line: log drivers split longer ones
	longestMessages = 12 << 10 // bytes: what the messages of one pod may take together
)

// Record is what a pod, or one container of it, came to.
type Record struct {
	UID        string  `json:"uid"`
	Attempt    int     `json:"attempt"`
	By         string  `json:"by"`
	At         float64 `json:"at"`
	Reason     string  `json:"reason,omitempty"`
	Message    string  `json:"message,omitempty"`
	Failed     bool    `json:"failed"`
	Containers []State `json:"containers"`
}

// lines are a record as the last lines of a log: a piece each, and a seal. They are at most
// `longestRecord` bytes, for which messages are cut where even compressed they are too long.
func (r Record) lines(key []byte) ([]string, error) {
	for limit := longestMessages; ; limit = limit * 3 / 4 {
		text, err := json.Marshal(r.within(limit))
		if err != nil {
			return nil, err
		}
		made := sealed(text, key)
		size := 0
		for _, line := range made {
			size += len(line) + 1
		}
		if size <= longestRecord || limit == 0 {
			return made, nil
		}
	}
}

// within cuts messages so that each container has its share of `limit` bytes, and one that needs
// less leaves the rest to the others.
func (r Record) within(limit int) Record {
	made := r
	made.Containers = make([]State, len(r.Containers))
	copy(made.Containers, r.Containers)
	var messages []*string
	for at := range made.Containers {
		one := &made.Containers[at]
		// They were told while the pod ran: room is for how it ended.
		one.Notices = nil
		messages = append(messages, &one.Message)
		for _, exit := range []**Exit{&one.Exit, &one.Previous} {
			if *exit != nil {
				changed := **exit
				*exit = &changed
				messages = append(messages, &changed.Message)
			}
		}
	}
	share := fairShare(messages, limit)
	for _, one := range messages {
		*one = shorten(*one, share)
	}
	return made
}

// fairShare is the most bytes that each message may have so that all have `limit` together.
func fairShare(messages []*string, limit int) int {
	low, high := 0, limit
	for low < high {
		middle := (low + high + 1) / 2
		total := 0
		for _, one := range messages {
			total += min(len(*one), middle)
		}
		if total <= limit {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

func shorten(text string, length int) string {
	if len(text) <= length {
		return text
	}
	for length > 0 && !utf8.RuneStart(text[length]) {
		length--
	}
	return text[:length]
}

func sealed(text, key []byte) []string {
	var packed bytes.Buffer
	writer, _ := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	_, _ = writer.Write(text)
	_ = writer.Close()
	body := base64.StdEncoding.EncodeToString(packed.Bytes())
	var mark [6]byte
	_, _ = rand.Read(mark[:])
	name := hex.EncodeToString(mark[:])
	count := (len(body) + longestLine - 1) / longestLine
	var made []string
	for at := range count {
		piece := body[at*longestLine : min(len(body), (at+1)*longestLine)]
		made = append(made, fmt.Sprintf("%s %s %d/%d %s", marker, name, at+1, count, piece))
	}
	seal := hmac.New(sha256.New, key)
	fmt.Fprintf(seal, "podbridge record %d\n%s\n", version, name)
	seal.Write(packed.Bytes())
	return append(made, fmt.Sprintf("%s %s seal %s", marker, name, hex.EncodeToString(seal.Sum(nil))))
}

// text is the lines behind whatever stands before them, which may have no line's end.
func (r Record) text(key []byte) (string, error) {
	lines, err := r.lines(key)
	if err != nil {
		return "", err
	}
	return "\n" + strings.Join(lines, "\n") + "\n", nil
}
