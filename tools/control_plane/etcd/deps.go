//go:build deps

// Package deps names what is built of the modules that go.mod requires.
package deps

import (
	_ "go.etcd.io/etcd/server/v3"
)
