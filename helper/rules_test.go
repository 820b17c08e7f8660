package main

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

type tableRun struct {
	StartedAt  *float64 `json:"started_at"`
	FinishedAt float64  `json:"finished_at"`
}

func (r *tableRun) exit() *Exit {
	if r == nil {
		return nil
	}
	return &Exit{Code: 1, Reason: "Error", StartedAt: r.StartedAt, FinishedAt: r.FinishedAt}
}

type waitRow struct {
	What     string
	Restart  int
	Last     *tableRun
	Previous *tableRun
	Seconds  float64
}

type rulesTable struct {
	ShouldRestart []struct {
		What, Role, Policy, Reason string
		Code                       int
		Rules                      []Rule
		Restarts                   bool
	} `json:"should_restart"`
	Backoff         []waitRow
	BackoffOfKilled []waitRow `json:"backoff_of_killed"`
	Gates           []struct {
		What       string
		Containers [][]string
		States     map[string]struct {
			Ended   *int
			Running *bool
		}
		Starts []string
	}
}

// rules is the table that tests/helper/test_helper_rules.py holds bridge/pods to.
func rules(t *testing.T) rulesTable {
	t.Helper()
	data, err := os.ReadFile("../tests/helper/rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var made rulesTable
	if err := json.Unmarshal(data, &made); err != nil {
		t.Fatal(err)
	}
	return made
}

var kubelets = Backoff{First: 10, Longest: 300, Quiet: 600}

func TestWhoRunsAgain(t *testing.T) {
	for _, row := range rules(t).ShouldRestart {
		exit := Exit{Code: row.Code, Reason: row.Reason, FinishedAt: 1}
		if got := shouldRestart(row.Role, row.Policy, row.Rules, exit); got != row.Restarts {
			t.Errorf("%s: %v", row.What, got)
		}
	}
}

func TestWhen(t *testing.T) {
	table := rules(t)
	for _, row := range table.Backoff {
		if got := kubelets.delay(row.Restart, *row.Last.exit(), row.Previous.exit()); got != row.Seconds {
			t.Errorf("%s: %v", row.What, got)
		}
	}
	for _, row := range table.BackoffOfKilled {
		if got := kubelets.delayOfKilled(row.Restart, *row.Last.exit(), row.Previous.exit()); got != row.Seconds {
			t.Errorf("%s: %v", row.What, got)
		}
	}
}

func TestWhoStarts(t *testing.T) {
	for _, row := range rules(t).Gates {
		payload := &Payload{}
		for _, one := range row.Containers {
			payload.Pod.Containers = append(payload.Pod.Containers, Peer{Name: one[0], Role: one[1]})
		}
		board := &board{payload: payload, seen: map[string]State{}, lost: map[string]bool{}}
		for name, said := range row.States {
			state := State{Name: name, Sequence: 1, State: running}
			if said.Ended != nil {
				state.State, state.Final, state.Exit = ended, true, &Exit{Code: *said.Ended}
			} else {
				state.Started = *said.Running
			}
			board.seen[name] = state
		}
		starts := []string{}
		for _, peer := range payload.Pod.Containers {
			if board.seen[peer.Name].Sequence > 0 || board.failedInit() != "" {
				continue
			}
			if goes, why := board.admits(peer, true, 1); why != "" {
				t.Errorf("%s: %s never starts: %s", row.What, peer.Name, why)
			} else if goes {
				starts = append(starts, peer.Name)
			}
		}
		if !slices.Equal(starts, row.Starts) {
			t.Errorf("%s: %v", row.What, starts)
		}
	}
}
