"""Runs the adapters' contract on a real account, and keeps what was said there, redacted."""
