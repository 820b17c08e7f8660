"""Image references, against the distribution project's grammar and the cases that it documents."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Invalid
from bridge.registry import Reference, logins, parse
from bridge.workload import PullCredential

SHA = "sha256:" + "0a" * 32
GRAMMAR = {
    "domain": r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?",
    "component": r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*",
    "tag": r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
    "digest": r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}",
}
"""The productions of github.com/distribution/reference."""


def matching(production: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(GRAMMAR[production]), fullmatch=True)


def ordinary(text: str) -> bool:
    return len(text) <= 60


@pytest.mark.parametrize(
    ("image", "registry", "path", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", "latest", ""),
        ("busybox:1.37", "docker.io", "library/busybox", "1.37", ""),
        ("docker.io/busybox", "docker.io", "library/busybox", "latest", ""),
        ("index.docker.io/busybox:1", "docker.io", "library/busybox", "1", ""),
        ("index.docker.io/me/app", "docker.io", "me/app", "latest", ""),
        ("me/app", "docker.io", "me/app", "latest", ""),
        ("library/foo/bar", "docker.io", "library/foo/bar", "latest", ""),
        ("test_com/foo", "docker.io", "test_com/foo", "latest", ""),
        ("test.com:5000", "docker.io", "library/test.com", "5000", ""),
        ("192.168.0.1:80", "docker.io", "library/192.168.0.1", "80", ""),
        ("Foo/bar", "Foo", "bar", "latest", ""),
        ("localhost/app", "localhost", "app", "latest", ""),
        ("localhost:5000/a/b:x", "localhost:5000", "a/b", "x", ""),
        ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", "latest", ""),
        ("test:5000/repo", "test:5000", "repo", "latest", ""),
        ("[fc00::1]:5000/docker", "[fc00::1]:5000", "docker", "latest", ""),
        ("[2001:db8::1]/repo:tag", "[2001:db8::1]", "repo", "tag", ""),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com", ""),
        ("dock__er/docker---rules", "docker.io", "dock__er/docker---rules", "latest", ""),
        (f"r.io/a@{SHA}", "r.io", "a", "", SHA),
        (f"r.io/a:1@{SHA}", "r.io", "a", "1", SHA),
        (f"busybox@{SHA}", "docker.io", "library/busybox", "", SHA),
        ("r.io/a@sha512:" + "f" * 128, "r.io", "a", "", "sha512:" + "f" * 128),
        ("r.io/" + "a/" * 127 + "a", "r.io", "a/" * 127 + "a", "latest", ""),
        ("docker.io/" + "1a" * 32, "docker.io", "library/" + "1a" * 32, "latest", ""),
    ],
)
def test_what_is_a_name(image: str, registry: str, path: str, tag: str, digest: str) -> None:
    assert parse(image) == Reference(registry, path, tag, digest)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        (f"@{SHA}", "invalid reference format"),
        ("-docker", "invalid reference format"),
        ("docker-/docker", "invalid reference format"),
        ("dock..er/docker", "invalid reference format"),
        ("dock_.er/docker", "invalid reference format"),
        ("____/____", "invalid reference format"),
        ("docker///docker", "invalid reference format"),
        ("docker/", "invalid reference format"),
        ("aa/asdf$$^/aa", "invalid reference format"),
        ("https://github.com/docker/docker", "invalid reference format"),
        ("[fc00::1]", "invalid reference format"),
        ("[fe80::1%eth0]:5000/debian", "invalid reference format"),
        ("fc00::1:5000/debian", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a:" + "x" * 129, "invalid reference format"),
        ("a:1\n", "invalid reference format"),
        ("\u212aelvin/app:1", "invalid reference format"),
        ("docker/Docker", "repository name (docker/Docker) must be lowercase"),
        ("Uppercase:tag", "repository name (library/Uppercase) must be lowercase"),
        ("1a" * 32, "cannot specify 64-byte hexadecimal strings"),
        ("r.io/" + "a/" * 128 + "a", "must not be more than 255 characters"),
        ("a@sha256:" + "f" * 34, "invalid checksum digest length"),
        ("a@sha256:" + "F" * 64, "invalid checksum digest format"),
        ("a@md5:" + "f" * 32, "unsupported digest algorithm"),
    ],
)
def test_what_is_no_name(image: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(image)
    assert words in caught.value.message
    assert f'couldn\'t parse image name "{image}": ' in caught.value.message


@given(
    matching("domain").filter(ordinary).filter(lambda one: "." in one or ":" in one),
    st.lists(matching("component").filter(ordinary), min_size=1, max_size=4),
    st.none() | matching("tag"),
    st.none() | matching("digest"),
)
def test_the_grammar_is_read_whole(
    domain: str, components: list[str], tag: str | None, digest: str | None
) -> None:
    """With a registry that can be nothing else, each part is what stands there."""
    path = "/".join(components)
    found = parse(
        f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    )
    assert found.registry == ("docker.io" if domain == "index.docker.io" else domain)
    assert found.path in (path, f"library/{path}")
    assert found.tag == (tag or ("" if digest else "latest"))
    assert found.digest == (digest or "")


@given(st.text() | st.from_regex(r"[a-zA-Z.:/@_-]{0,20}", fullmatch=True))
def test_any_text_is_a_name_or_invalid(image: str) -> None:
    """And the whole name of a name is that name."""
    try:
        found = parse(image)
    except Invalid:
        return
    assert parse(str(found)) == found
    assert found.tag or found.digest


def test_where_docker_hub_is() -> None:
    assert parse("busybox").endpoint == "registry-1.docker.io"
    assert parse("docker.io/me/app").endpoint == "registry-1.docker.io"
    assert parse("quay.io/me/app").endpoint == "quay.io"
    assert parse(f"a:1@{SHA}").target == SHA


def test_logins_of_one_place_keep_their_order() -> None:
    """Several may be valid while one is replaced."""
    first, second = PullCredential("r.io", "a", "p"), PullCredential("https://r.io", "b", "p")
    close = PullCredential("r.io/team/app", "c", "p")
    wide = PullCredential("*.io", "d", "p")
    found = logins("r.io/team/app", [first, wide, close, second])
    assert found == [close, first, second, wide]
