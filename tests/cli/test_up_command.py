"""`podbridge up` and `kubelet`: what is said before a node is made."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from commands_kit import home, invoke

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")


def kubeconfig(place: Path, server: str, **user: Any) -> str:
    file = place / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    file.write_text(json.dumps(content))
    return str(file)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def up(place: Path, *words: str) -> tuple[int, str, str]:
    """`up` on `process`, where nobody has the port of its API."""
    config = place / "podbridge.yaml"
    config.write_text(f"apiVersion: podbridge.io/v1\nnodes: [{{name: n, port: {free_port()}}}]\n")
    return invoke("--config", str(config), "up", "--on", "process", *words)


def test_a_node_needs_backends() -> None:
    code, _, error = invoke("up")
    assert code == 2
    assert "no backend is configured; name a type, such as --on process" in error


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    code, _, error = up(tmp_path, "--kubeconfig", str(tmp_path / "none"))
    assert code == 2
    assert f"{tmp_path}/none: there is no such file" in error


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "https://127.0.0.1:1")
    code, _, error = up(tmp_path, "--kubeconfig", file, "--context", "her")
    assert code == 2
    assert 'found "her"' in error
    assert "here" in error


@pytest.mark.slow
def test_an_api_server_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    file = kubeconfig(tmp_path, f"https://127.0.0.1:{port}", token="sentinel")
    code, _, error = up(tmp_path, "--kubeconfig", file)
    assert code == 3
    assert f"error: the API server at https://127.0.0.1:{port} does not answer" in error
    assert "sentinel" not in error


def test_a_flag_for_one_node_where_there_are_two(tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text("apiVersion: podbridge.io/v1\nnodes:\n- name: a\n- name: b\n  port: 10251\n")
    code, _, error = invoke("--config", str(config), "up", "--on", "process", "--node", "c")
    assert code == 2
    assert "--node: several nodes are configured: a, b" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "nodes:\n- name: a\n- name: a\n",
            'nodes[1].name: found "a", which is nodes[0].name already',
        ),
        ("nodes:\n- backends: [x]\n", 'nodes[0].backends[0]: found "x"'),
        ("cluster:\n  id: seven\n", 'cluster.id: found string "seven"; allowed: a UUID'),
        ("cluster:\n  contexd: x\n", 'cluster.contexd: unknown key; did you mean "context"?'),
    ],
)
def test_a_configuration_that_is_wrong_is_told_by_field(
    tmp_path: Path, text: str, said: str
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(f"apiVersion: podbridge.io/v1\n{text}")
    code, _, error = invoke("--config", str(config), "up", "--on", "process")
    assert code == 2
    assert said in error


def test_a_kubelet_needs_a_provider() -> None:
    code, _, error = invoke("kubelet")
    assert code == 2
    assert "--provider" in error


def test_a_kubeconfig_that_is_missing_is_told_before_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        file = tmp_path / "podbridge.yaml"
        port = taken.getsockname()[1]
        file.write_text(f"apiVersion: podbridge.io/v1\nnodes: [{{name: burst, port: {port}}}]\n")
        absent = str(tmp_path / "absent")
        words = ("--config", str(file), "up", "--on", "process", "--kubeconfig", absent)
        code, _, error = invoke(*words)
    assert code == 2
    assert "absent: there is no such file" in error
