from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from control_plane_kit import ControlPlane, FakeNode, Namespace, fake_node, namespace

from bridge.kubelet.manifests.burst import STABLE, api_version
from tools.control_plane import assets, handle
from tools.control_plane.components import API_SERVER
from tools.control_plane.recipes import VERSIONS

VERSION = os.environ.get("TEST_KUBERNETES", VERSIONS[0])


@pytest.fixture(scope="session")
def kubernetes_version() -> str:
    """The minor under test; without its programs the test is skipped, and says so."""
    if VERSION not in VERSIONS:
        pytest.fail(f"TEST_KUBERNETES is {VERSION}; there are {', '.join(VERSIONS)}")
    try:
        assets.locate(VERSION)
    except assets.Missing as error:
        pytest.skip(str(error))
    return VERSION


@pytest.fixture(scope="session")
def control_plane(
    kubernetes_version: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane for all tests of this worker, with an audit log."""
    folder = tmp_path_factory.mktemp("control-plane")
    extra = {API_SERVER: _burst_flags(kubernetes_version)}
    with handle.running(folder, version=kubernetes_version, audit=True, extra=extra) as made:
        yield made


def _burst_flags(version: str) -> list[str]:
    """What `podbridge install --burst` says that an API server needs whose policies are beta."""
    minor = int(version.partition(".")[2])
    if minor >= STABLE:
        return []
    api = api_version(minor)
    return [f"--runtime-config={api}=true", "--feature-gates=MutatingAdmissionPolicy=true"]


@pytest.fixture(name="namespace")
def _namespace(control_plane: ControlPlane) -> Iterator[Namespace]:
    """A namespace for this test."""
    with namespace(control_plane) as made:
        yield made


@pytest.fixture(name="node")
def _node(control_plane: ControlPlane) -> Iterator[FakeNode]:
    """A node that is Ready, played by this test."""
    with fake_node(control_plane) as made:
        yield made
