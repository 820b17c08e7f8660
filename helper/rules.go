package main

import (
	"math"
	"slices"
)

// The rules of bridge/pods/lifecycle.py and backoff.py; tests/helper/rules.json holds both to one
// table. Times are seconds since the epoch, durations seconds.

const (
	leastGrace    = 2.0 // what every container gets to stop (minimumGracePeriodInSeconds)
	clockSlack    = 2.0 // as in backoff.py: recorded times may have no fractions
	reasonUnknown = "ContainerStatusUnknown"
)

// Rule is one of a container's own restart rules; the first that matches decides.
type Rule struct {
	Restart bool  `json:"restart"`
	Codes   []int `json:"codes"`
	Negated bool  `json:"negated"`
}

// Backoff has the first and longest delay, and how long a run clears it.
type Backoff struct {
	First   float64 `json:"first"`
	Longest float64 `json:"longest"`
	Quiet   float64 `json:"quiet"`
}

// Exit is how a run ended.
type Exit struct {
	Code       int      `json:"code"`
	Signal     int      `json:"signal,omitempty"`
	Reason     string   `json:"reason"`
	Message    string   `json:"message,omitempty"`
	StartedAt  *float64 `json:"started_at,omitempty"`
	FinishedAt float64  `json:"finished_at"`
}

// shouldRestart says whether a container that ended this way runs again, back-off aside.
func shouldRestart(role, policy string, rules []Rule, exit Exit) bool {
	if role == roleSidecar {
		return true
	}
	if role == roleInit && exit.Code == 0 {
		return false
	}
	if exit.Reason != reasonUnknown {
		for _, rule := range rules {
			if slices.Contains(rule.Codes, exit.Code) != rule.Negated {
				if rule.Restart {
					return true
				}
				break
			}
		}
	}
	if policy == "OnFailure" {
		return exit.Code != 0
	}
	return policy == "Always"
}

// delay is the time from the end of run number `restart` to its next start.
func (b Backoff) delay(restart int, last Exit, previous *Exit) float64 {
	if restart == 0 || (last.StartedAt != nil && last.FinishedAt-*last.StartedAt > b.Quiet) {
		return 0
	}
	delay := math.Min(b.First*math.Pow(2, float64(min(restart-1, 10))), b.Longest)
	if previous == nil {
		return delay
	}
	if previous.StartedAt != nil && previous.FinishedAt-*previous.StartedAt > b.Quiet {
		return b.First
	}
	if last.StartedAt == nil {
		return delay
	}
	waited := *last.StartedAt - previous.FinishedAt + clockSlack
	reached := b.First
	for reached <= waited && reached < b.Longest {
		reached *= 2
	}
	return math.Min(delay, reached)
}

// delayOfKilled is `delay` where a run was killed, for a failed probe say.
func (b Backoff) delayOfKilled(restart int, last Exit, previous *Exit) float64 {
	if previous == nil {
		return 0
	}
	delay := b.delay(restart-1, *previous, nil)
	if previous.FinishedAt+delay <= last.FinishedAt {
		return 0
	}
	return delay
}
