"""Containers on Docker or Podman, through the Docker API."""
