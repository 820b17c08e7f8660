"""Stand-ins for the images that Kubernetes' tests name, made of this machine's own programs.

Where no registry can be reached the tests' own images cannot be had. Theirs are a busybox, agnhost
(built from the tests' sources), a web server, and small variants of these; so are ours. Each is one
layer made here and given to the engine, which keeps it for the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools.conformance import privileges
from tools.conformance.containers import engine

REGISTRY = "stand-ins.invalid"
_TESTS = f"{REGISTRY}/e2e-test-images"
REGISTRIES = {"promoterE2eRegistry": _TESTS, "gcRegistry": REGISTRY}
"""What the tests are told of registries (KUBE_TEST_REPO_LIST): under the real names the engine may
have real images, or other stand-ins."""
BUSYBOX = f"{_TESTS}/busybox:1.37.0-1"
_AGNHOST = (
    *(f"{_TESTS}/agnhost:{tag}" for tag in ("2.63.0", "2.55", "2.53")),
    *(f"{REGISTRY}/pause:{tag}" for tag in ("3.10.2", "3.10.1", "3.10")),
)
"""What agnhost stands for: of itself, of an older self, and of what only waits."""
_NGINX = tuple(f"{_TESTS}/nginx:{tag}" for tag in ("1.15-4", "1.27-0", "1.14-4"))
_LABEL = "podbridge.io/stand-in"
"""What an image was made of: a digest."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WORLD = "/home/user-defined-in-image"


class NotHere(Exception):
    """A program of this machine that an image needs; the text says which."""


@dataclass
class _Image:
    """Files of one layer, and how a container of it starts."""

    names: Sequence[str]
    changes: list[str]
    """As a Dockerfile has them."""
    entries: dict[str, tuple[int, bytes | str | None]] = field(default_factory=dict)
    """By path: mode, and content, or a link's target, or None for a folder."""

    def like(self, *names: str, changes: Sequence[str] = ()) -> _Image:
        return _Image(names, [*self.changes, *changes], dict(self.entries))

    def folder(self, path: str, mode: int = 0o755) -> None:
        self.entries.setdefault(path, (mode, None))

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        for one in reversed(Path(path).parents):
            if str(one) != ".":
                self.folder(str(one))
        self.entries[path] = (mode, content)

    def link(self, path: str, to: str) -> None:
        self.entries[path] = (0o777, to)

    def digest(self) -> str:
        digest = hashlib.sha256(repr(self.changes).encode())
        for path, (mode, content) in sorted(self.entries.items()):
            digest.update(f"{path}\0{mode:o}\0{type(content).__name__}\0".encode())
            digest.update(content if isinstance(content, bytes) else str(content).encode())
        return digest.hexdigest()[:16]

    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path, (mode, content) in self.entries.items():
                entry = tarfile.TarInfo(path)
                entry.mode = mode
                if content is None:
                    entry.type = tarfile.DIRTYPE
                    tar.addfile(entry)
                elif isinstance(content, str):
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    tar.addfile(entry)
                else:
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()


def provide(agnhost: Path) -> Sequence[str]:
    """Has them made where the engine lacks them; their names. NotHere; LookupError with the
    engine's words."""
    names: list[str] = []
    for one in _images(agnhost):
        names += one.names
        digest = one.digest()
        there = {name: _there(name) for name in one.names}
        missing = [name for name, (_, of) in there.items() if of != digest]
        if not missing:
            continue
        changes = [*one.changes, f"LABEL {_LABEL}={digest}"]
        asked = "&".join(f"changes={quote(change)}" for change in changes)
        answer = engine.call("POST", f"/images/create?fromSrc=-&{asked}", one.tar())
        made = (answer.get("id") or answer["status"]).removeprefix("sha256:")
        for name in missing:
            repository, _, tag = name.rpartition(":")
            engine.call("POST", f"/images/{made}/tag?repo={quote(repository)}&tag={tag}")
        for old in {there[name][0] for name in missing} - {""}:
            # Nobody can name it any more; one that is in use goes another time.
            with contextlib.suppress(LookupError):
                engine.call("DELETE", f"/images/{old}")
    return names


def _there(name: str) -> tuple[str, str]:
    """The ID of the image of that name, and what it was made of; empty: there is none."""
    try:
        found: Any = engine.call("GET", f"/images/{quote(name, safe='')}/json")
    except LookupError:
        return "", ""
    labels = (found.get("Config") or {}).get("Labels") or {}
    return str(found["Id"]).removeprefix("sha256:"), str(labels.get(_LABEL, ""))


def _images(agnhost: Path) -> Iterator[_Image]:
    busybox = _busybox()
    yield busybox
    yield _agnhost(busybox, agnhost)
    pages = "usr/share/nginx/html"
    nginx = busybox.like(*_NGINX, changes=[f'CMD ["httpd","-f","-p","80","-h","/{pages}"]'])
    nginx.file(f"{pages}/index.html", b"<title>Welcome to nginx!</title>\n")
    yield nginx
    yield busybox.like(f"{_TESTS}/nonroot:1.5", changes=["USER 1234", 'CMD ["sleep","3600"]'])
    nnp = busybox.like(f"{_TESTS}/nonewprivs:1.4", changes=['ENTRYPOINT ["/nnp"]'])
    nnp.file("nnp", privileges.program(), 0o4755)
    yield nnp


def _busybox() -> _Image:
    image = _Image((BUSYBOX,), [f"ENV PATH={_PATH}", 'CMD ["sh"]'])
    for name in ("bin", "etc", "root", "usr", "usr/bin", "sbin", "var", "home"):
        image.folder(name)
    image.folder("tmp", 0o1777)
    image.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    image.file("etc/group", b"root:x:0:\nnobody:x:65534:\n")
    program = _path_of("busybox", "Debian: busybox-static")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    image.file("bin/busybox", program.read_bytes(), 0o755)
    for name in sorted({*listed.stdout.split()} - {"busybox"}):
        image.link(f"bin/{name}", "/bin/busybox")
    # The shell of the real one hands on variables that it cannot name itself (`a-b`), which tests
    # look for with `sh -c env`; that of an older busybox does not. What they read of its errors, of
    # /bin/sh, is as it should be.
    for name in ("usr/local", "usr/local/bin"):
        image.folder(name)
    _with_libraries(image, _path_of("bash", "Debian: bash"), "bin/bash")
    image.link("usr/local/bin/sh", "/bin/bash")
    return image


def _agnhost(busybox: _Image, program: Path) -> _Image:
    image = busybox.like(*_AGNHOST, changes=['ENTRYPOINT ["/agnhost"]', 'CMD ["pause"]'])
    image.file("agnhost", program.read_bytes(), 0o755)
    for name in ("agnhost-2", "bin/agnhost"):
        image.link(name, "/agnhost")
    image.folder("uploads")
    # What its web server is asked for where only the answer counts.
    image.file("localhost.crt", b"a stand-in\n")
    users = b"user-defined-in-image:x:1000:1000::" + _WORLD.encode() + b":/bin/sh\n"
    groups = b"user-defined-in-image:x:1000:\n"
    groups += b"group-defined-in-image:x:50000:user-defined-in-image\n"
    for path, more in (("etc/passwd", users), ("etc/group", groups)):
        mode, content = image.entries[path]
        assert isinstance(content, bytes)
        image.entries[path] = (mode, content + more)
    # The real one has curl.
    _with_libraries(image, _path_of("curl", "Debian: curl"), "usr/bin/curl")
    return image


def _with_libraries(image: _Image, program: Path, at: str) -> None:
    """A program of this machine with what it is linked with, at the same paths as here."""
    image.file(at, program.read_bytes(), 0o755)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in sorted({*re.findall(r"/\S+", said)}):
        image.file(library.lstrip("/"), Path(library).read_bytes(), 0o755)


def _path_of(program: str, package: str) -> Path:
    found = shutil.which(program)
    if found is None:
        raise NotHere(f"no {program} here to make images of ({package})")
    return Path(found)
