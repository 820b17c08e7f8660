//go:build deps

// Package deps names what is built of the modules that go.mod requires.
package deps

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
