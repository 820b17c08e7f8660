from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from control_plane_kit import ControlPlane, FakeNode, Namespace, fake_node, namespace

from tools.control_plane import assets, handle
from tools.control_plane.recipes import VERSIONS

VERSION = os.environ.get("PODBRIDGE_TEST_KUBERNETES", VERSIONS[0])


@pytest.fixture(scope="session")
def kubernetes_version() -> str:
    """The minor under test; without its programs the test is skipped, and says so."""
    if VERSION not in VERSIONS:
        pytest.fail(f"PODBRIDGE_TEST_KUBERNETES is {VERSION}; there are {', '.join(VERSIONS)}")
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
    with handle.running(folder, version=kubernetes_version, audit=True) as made:
        yield made


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
