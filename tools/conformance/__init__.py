"""Kubernetes' own end-to-end tests on a node with the `engine` backend."""
