package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	noticesMost   = 8    // that are kept of a container
	longestNotice = 1024 // bytes of a notice's message
	noticeAgain   = 60.0 // seconds before the same notice is told again
)

// Notice is what befell a container and its state does not show: an event, in the kubelet's words.
type Notice struct {
	At      float64 `json:"at"` // later than that of each notice before it
	Reason  string  `json:"reason"`
	Message string  `json:"message"`
	Warning bool    `json:"warning,omitempty"`
}

// noticed is what was told with one more, unless the same was told a short while ago; whether it is
// there. What was told is left as it is: others may be reading it.
func noticed(told []Notice, more Notice) ([]Notice, bool) {
	more.Message = shorten(more.Message, longestNotice)
	for _, one := range told {
		if one.Reason == more.Reason && one.Message == more.Message && more.At-one.At < noticeAgain {
			return told, false
		}
	}
	if len(told) > 0 {
		more.At = max(more.At, told[len(told)-1].At+1e-6)
	}
	made := append(slices.Clone(told), more)
	return made[max(0, len(made)-noticesMost):], true
}

// notice tells of something that befell the container.
func (s *supervisor) notice(warning bool, reason, message string) {
	made, isNew := noticed(s.notices, Notice{now(), reason, message, warning})
	if isNew {
		s.notices = made
		s.publish()
	}
}

// answered tells of an answer to a probe that is no good one.
func (s *supervisor) answered(one *attempt, kind string, found outcome) {
	isOver := one.kill != nil || one.ending != nil
	if (found.known && found.good) || (kind != readiness && isOver) {
		return
	}
	words := "probe failed: "
	if !found.known {
		words = "probe errored and resulted in unknown state: "
	}
	s.notice(true, "Unhealthy", kind+" "+words+found.words)
}

// killWords are the kubelet's for its end of a container whose probe has failed.
func killWords(one *Container, kind string) string {
	if one.Role == roleSidecar {
		return fmt.Sprintf("Init container %s failed %s probe", one.Name, strings.ToLower(kind))
	}
	words := fmt.Sprintf("Container %s failed %s probe", one.Name, strings.ToLower(kind))
	if one.RestartPolicy != "Never" {
		words += ", will be restarted"
	}
	return words
}
