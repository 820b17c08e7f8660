package main

import (
	"context"
	"time"
)

const tries = 3 // how often a try that could not be made is made again at once (maxProbeRetries)

// counting counts answers of one kind in a row, as pkg/kubelet/prober/worker.go does.
type counting struct {
	success, failure int
	last             bool
	row              int
}

// add says what the probe means now; false as second where too few in a row say anything new.
func (c *counting) add(good bool) (verdict, known bool) {
	if good == c.last && c.row > 0 {
		c.row++
	} else {
		c.row = 1
	}
	c.last = good
	needed := c.failure
	if good {
		needed = c.success
	}
	return good, c.row >= needed
}

const (
	startup   = "Startup"
	liveness  = "Liveness"
	readiness = "Readiness"
)

// watchProbe asks after the initial delay and then every period, until `ctx` is done. `hear` gets
// every answer, `tell` what the thresholds make of them. It ends where the kubelet's worker is on hold until the
// next run: a liveness probe that has failed, a startup probe that knows.
func watchProbe(ctx context.Context, kind string, probe *Probe, first time.Duration, ask func() outcome, hear func(outcome), tell func(good bool)) {
	counter := counting{success: probe.SuccessThreshold, failure: probe.FailureThreshold}
	if !pause(ctx, first) {
		return
	}
	ticks := time.NewTicker(seconds(probe.Period))
	defer ticks.Stop()
	for {
		found := ask()
		for range tries - 1 {
			if !found.known {
				found = ask()
			}
		}
		if ctx.Err() != nil {
			return
		}
		hear(found)
		if found.known {
			if good, known := counter.add(found.good); known {
				tell(good)
				if kind == startup || (kind == liveness && !good) {
					return
				}
			}
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

func pause(ctx context.Context, length time.Duration) bool {
	select {
	case <-time.After(length):
		return true
	case <-ctx.Done():
		return false
	}
}
