package main

import (
	"strings"
	"testing"
)

func TestNoticesAreFewShortAndInOrder(t *testing.T) {
	var told []Notice
	for at := range 20 {
		more := Notice{At: 5, Reason: "Unhealthy", Message: strings.Repeat("x", 2000-at*60)}
		before := len(told)
		var isNew bool
		if told, isNew = noticed(told, more); isNew != (at == 0 || 2000-at*60 < longestNotice) {
			t.Errorf("%d: new %v, before %d", at, isNew, before)
		}
	}
	if len(told) != 4 {
		t.Errorf("%d notices", len(told))
	}
	for at := range 20 {
		told, _ = noticed(told, Notice{At: 5, Reason: "Killing", Message: strings.Repeat("y", at)})
	}
	if len(told) != noticesMost || told[noticesMost-1].Message != strings.Repeat("y", 19) {
		t.Errorf("%+v", told)
	}
	for at := range told[1:] {
		if told[at].At >= told[at+1].At {
			t.Errorf("%v is not before %v", told[at].At, told[at+1].At)
		}
	}
}

func TestTheSameNoticeComesAgainAfterAWhile(t *testing.T) {
	first, _ := noticed(nil, Notice{At: 100, Reason: "Unhealthy", Message: "no"})
	if _, isNew := noticed(first, Notice{At: 159, Reason: "Unhealthy", Message: "no"}); isNew {
		t.Error("again, too soon")
	}
	if _, isNew := noticed(first, Notice{At: 160, Reason: "Unhealthy", Message: "no"}); !isNew {
		t.Error("not again")
	}
}

func TestWhyAContainerIsKilledAsTheKubeletSaysIt(t *testing.T) {
	for _, row := range []struct{ role, policy, kind, words string }{
		{roleMain, "Always", liveness, "Container c failed liveness probe, will be restarted"},
		{roleMain, "Never", startup, "Container c failed startup probe"},
		{roleSidecar, "Always", liveness, "Init container c failed liveness probe"},
	} {
		if words := killWords(&Container{Name: "c", Role: row.role, RestartPolicy: row.policy}, row.kind); words != row.words {
			t.Error(words)
		}
	}
}

func TestMainContainersWaitForThePostStartHooksBeforeThem(t *testing.T) {
	containers := []Peer{{Name: "a", Role: roleMain, Opens: true}, {Name: "b", Role: roleMain}}
	board := &board{payload: &Payload{Pod: Pod{Containers: containers}}, seen: map[string]State{}, lost: map[string]bool{}}
	goes := func(name string, patience bool) bool {
		found, _ := board.admits(Peer{Name: name, Role: roleMain}, patience, 1)
		return found
	}
	for _, row := range []struct {
		what  string
		state State
		goes  bool
	}{
		{"it has not come", State{}, false},
		{"it waits", State{Sequence: 1, State: waiting}, false},
		{"its hook is at work", State{Sequence: 2, State: running, Opening: true}, false},
		{"its hook is over", State{Sequence: 3, State: running}, true},
		{"it has ended", State{Sequence: 3, State: ended, Exit: &Exit{}}, true},
		{"it never starts", State{Sequence: 2, State: waiting, Final: true}, true},
		{"it runs again", State{Sequence: 5, State: running, Opening: true, Restart: 1}, true},
	} {
		board.seen["a"] = row.state
		if goes("b", true) != row.goes || !goes("a", true) {
			t.Error(row.what)
		}
	}
	board.seen["a"] = State{}
	if !goes("b", false) {
		t.Error("it does not come any more")
	}
	board.seen["a"], board.lost["a"] = State{Sequence: 2, State: running, Opening: true}, true
	if !goes("b", true) {
		t.Error("it is lost")
	}
}
