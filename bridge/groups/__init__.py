"""Pods on clouds that run groups of containers: what is the same on all of them.

It knows no cloud and no SDK. An adapter gives it what its cloud says and does (docs/groups.md).
"""
