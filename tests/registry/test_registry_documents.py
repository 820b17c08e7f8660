"""What a registry keeps of an image, read: no server needed."""

from __future__ import annotations

import contextlib
import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paper_registry import EXAMPLE, digest_of

from bridge.errors import Unsupported
from bridge.registry.challenge import challenges
from bridge.registry.documents import (
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    choose,
    config,
    is_intact,
    manifest,
)
from bridge.registry.limits import exhausted, retry_after

SHA = "sha256:" + "0" * 64
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


def offered(*platforms: str) -> Index:
    """An index of these; each digest tells which one it is."""
    made = []
    for number, one in enumerate(platforms):
        os, architecture, variant = (*one.split("/"), "")[:3] if one else ("", "", "")
        platform = Platform(architecture, variant, os) if one else None
        made.append(Descriptor(f"{number}", 1, "", platform))
    return Index(tuple(made))


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        (Platform("amd64"), ["linux/arm64", "linux/amd64"], 1),
        (Platform("x86_64"), ["linux/arm64", "linux/amd64"], 1),
        (Platform("amd64"), ["windows/amd64", "linux/amd64"], 1),
        (Platform("amd64"), ["linux/amd64/v3", "linux/amd64"], 1),
        (Platform("amd64", "v3"), ["linux/amd64", "linux/amd64/v2"], 1),
        (Platform("arm64"), ["linux/amd64", "linux/arm64/v8"], 1),
        (Platform("aarch64", "v8"), ["linux/arm64"], 0),
        (Platform("arm64", "v9"), ["linux/arm64/v8"], 0),
        (Platform("arm"), ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        (Platform("arm", "v6"), ["linux/arm/v5", "linux/arm/v7"], 0),
        (Platform("s390x"), ["linux/amd64", "linux/s390x"], 1),
        (Platform("amd64"), ["", "linux/amd64"], 1),
        (Platform("amd64"), ["linux/arm64", ""], 1),
        (Platform("amd64"), ["linux/amd64", "linux/amd64"], 0),
    ],
)
def test_the_platform_s_manifest(wanted: Platform, there: list[str], chosen: int) -> None:
    assert choose("r.io/a:1", offered(*there), wanted).digest == str(chosen)


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        (Platform("amd64"), ["linux/arm64", "windows/amd64"]),
        (Platform("amd64"), ["linux/amd64/v2"]),
        (Platform("arm", "v6"), ["linux/arm/v7"]),
        (Platform("amd64"), []),
    ],
)
def test_another_platform_is_named(wanted: Platform, there: list[str]) -> None:
    with pytest.raises(Unsupported) as caught:
        choose("r.io/a:1", offered(*there), wanted)
    words = caught.value.message
    assert words.startswith(f"r.io/a:1 is not there for {wanted}, only for ")
    assert all(one in words for one in there)


def test_a_configuration_is_read_whole() -> None:
    found = config("a", json.dumps(EXAMPLE).encode(), Platform(), SHA)
    assert found == ImageConfig(
        entrypoint=("/bin/app",),
        cmd=("--port", "80"),
        env=(("PATH", "/bin"), ("EMPTY", ""), ("EQUALS", "a=b")),
        working_dir="/srv",
        user="app:app",
        stop_signal="SIGQUIT",
        exposed_ports=((53, "udp"), (80, "tcp"), (8080, "tcp")),
        volumes=("/data",),
        architecture="amd64",
        os="linux",
        digest=SHA,
    )
    assert "EQUALS" not in repr(found)


@pytest.mark.parametrize("own", [None, {}, {"Entrypoint": None, "Cmd": None, "Env": None}])
def test_what_is_not_said_is_empty(own: Any) -> None:
    said = {"architecture": "amd64", "os": "linux", "config": own}
    found = config("a", json.dumps(said).encode(), Platform(), SHA)
    assert found == ImageConfig(architecture="amd64", os="linux", digest=SHA)


@pytest.mark.parametrize(
    ("command", "args", "whole"),
    [
        ((), (), ("/bin/app", "--port", "80")),
        ((), ("-v",), ("/bin/app", "-v")),
        (("sh",), (), ("sh",)),
        (("sh",), ("-c", "x"), ("sh", "-c", "x")),
    ],
)
def test_a_container_s_command(
    command: tuple[str, ...], args: tuple[str, ...], whole: tuple[str, ...]
) -> None:
    """As Kubernetes documents it ("Define a Command and Arguments for a Container")."""
    image = ImageConfig(entrypoint=("/bin/app",), cmd=("--port", "80"))
    assert image.command(command, args) == whole
    assert ImageConfig().command((), ()) == ()


@pytest.mark.parametrize(
    "own",
    [
        [],
        {"Entrypoint": "sh"},
        {"Cmd": [1]},
        {"Env": {"A": "b"}},
        {"WorkingDir": 1},
        {"ExposedPorts": ["80"]},
        {"ExposedPorts": {"http/tcp": {}}},
        {"Volumes": ["/data"]},
    ],
)
def test_a_configuration_of_another_form(own: Any) -> None:
    said = {"architecture": "amd64", "os": "linux", "config": own or [1]}
    with pytest.raises(Unsupported, match="is not as the image format has it"):
        config("a", json.dumps(said).encode(), Platform(), SHA)


def test_a_configuration_for_another_platform() -> None:
    said = {"architecture": "arm64", "variant": "v8", "os": "linux"}
    with pytest.raises(Unsupported, match="not there for linux/amd64, only for linux/arm64/v8"):
        config("a", json.dumps(said).encode(), Platform(), SHA)
    assert config("a", json.dumps(said).encode(), Platform("arm64"), SHA).variant == "v8"


GOOD = {"mediaType": CONFIG_TYPE, "digest": SHA, "size": 2}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"no JSON", "no JSON object"),
        (b"[]", "no JSON object"),
        ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
        ({"schemaVersion": 2}, "names no configuration"),
        ({"manifests": [], "config": GOOD}, "an index and an image at once"),
        ({"manifests": [], "layers": []}, "an index and an image at once"),
        ({"config": "x"}, "'descriptor'"),
        ({"config": {**GOOD, "digest": "../../etc/passwd"}}, "unsupported digest algorithm"),
        ({"config": {**GOOD, "digest": "sha256:1"}}, "invalid checksum digest length"),
        ({"config": {**GOOD, "size": "2"}}, "'size'"),
        ({"config": {**GOOD, "size": -1}}, "'size'"),
        ({"config": {**GOOD, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "helm"),
        ({"manifests": [{**GOOD, "platform": "linux"}]}, "'platform'"),
    ],
)
def test_what_is_no_image(said: Any, words: str) -> None:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    with pytest.raises(Unsupported) as caught:
        manifest("r.io/a:1", content)
    assert words in caught.value.message
    assert "r.io/a:1" in caught.value.message


def test_provenance_is_no_platform() -> None:
    notes = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"architecture": "unknown", "os": "unknown"}
    said = {"manifests": [{**GOOD, "platform": unknown, "annotations": notes}, GOOD]}
    found = manifest("a", json.dumps(said).encode())
    assert isinstance(found, Index)
    assert [one.platform for one in found.manifests] == [None]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists) | st.binary())
def test_any_content_is_read_or_unsupported(said: Any) -> None:
    content = said if isinstance(said, bytes) else json.dumps({"config": said}).encode()
    for read in (lambda: manifest("a", content), lambda: config("a", content, Platform(), SHA)):
        with contextlib.suppress(Unsupported):
            assert isinstance(read(), Manifest | Index | ImageConfig)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_content_has_its_digest(algorithm: str) -> None:
    digest = digest_of(b"content", algorithm)
    assert is_intact(digest, b"content")
    assert not is_intact(digest, b"contenu")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], []),
        (['Basic realm="r"'], [("basic", {"realm": "r"})]),
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'],
            [
                (
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            ['bearer Realm = "a\\"b", service=plain, Basic realm="r"', "Negotiate"],
            [
                ("bearer", {"realm": 'a"b', "service": "plain"}),
                ("basic", {"realm": "r"}),
                ("negotiate", {}),
            ],
        ),
        (['realm="https://a"'], []),
        (['Bearer realm="unclosed'], [("bearer", {})]),
    ],
)
def test_challenges(headers: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, dict(one.parameters)) for one in challenges(headers)][
        : len(found)
    ] == found


@given(st.text())
def test_any_header_is_passed_over_or_read(header: str) -> None:
    for one in challenges([header]):
        assert one.scheme == one.scheme.lower()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "99999999"}, 3600.0),
        ({"Retry-After": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"Retry-After": formatdate(999_000, usegmt=True)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}, 216.0),
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "1;w=21600"}, None),
        ({"ratelimit-remaining": "0;w=21600"}, 3600.0),
        ({"ratelimit-remaining": "none"}, None),
    ],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 1_000_000.0) == seconds
    if "Retry-After" not in headers:
        assert exhausted(headers) == seconds
