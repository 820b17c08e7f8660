"""What is the same for pods on every cloud and takes no cloud to decide."""

from __future__ import annotations

from dataclasses import replace

from bridge.groups import tokens
from bridge.groups.images import rewritten
from bridge.workload import Container, File, Files, Identity, Role, Workload

WHO = Identity("cluster", "node", "default", "pod", "uid")


def pod(*volumes: Files) -> Workload:
    return Workload(WHO, (Container("main", Role.MAIN, "image"),), volumes)


def test_rewritten_names() -> None:
    rules = {"docker.io/": "cache.example/hub/", "docker.io/team/": "own.example/"}
    assert rewritten("busybox", rules) == "cache.example/hub/library/busybox:latest"
    assert rewritten("team/app:2", rules) == "own.example/app:2"
    assert rewritten("ghcr.io/a/b:1", rules) == "ghcr.io/a/b:1"
    assert rewritten("busybox", {}) == "busybox"


def test_a_token_that_nobody_renews_is_mounted_on_request() -> None:
    files = (File("ca.crt", b"ca"), File("token", b"secret", secret=True))
    every = Files("kube-api-access-x7z", files, "1")
    own = Files("own", files, "1")
    asked = pod(every, own)
    bare, kept = tokens.asked_for(asked, has_tunnel=False).volumes
    assert bare == replace(every, files=files[:1])
    assert kept == own
    wants = replace(asked, annotations={tokens.ANNOTATION: tokens.MOUNT})
    assert tokens.asked_for(wants, has_tunnel=False) is wants
    assert tokens.asked_for(asked, has_tunnel=True) is asked
    plain = pod(own)
    assert tokens.asked_for(plain, has_tunnel=False) is plain
