"""Probes and lifecycle hooks: what they do, when, and what follows. Over `exec` and `dial` only."""
