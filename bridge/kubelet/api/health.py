"""/healthz and what is below it, in the words of k8s.io/apiserver's healthz.

The checks are a kubelet's: that it answers, that it can log, that it follows its pods.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web


class Health:
    """`problem` says why the node is ill; empty: it is well."""

    def __init__(self, problem: Callable[[], str]) -> None:
        # Nothing that is logged here waits anywhere: where a kubelet looks at its log's buffer,
        # all is well.
        self._checks: dict[str, Callable[[], str]] = {
            "ping": lambda: "",
            "log": lambda: "",
            "syncloop": problem,
        }

    @property
    def paths(self) -> list[str]:
        """Those of the single checks."""
        return [f"/healthz/{name}" for name in self._checks]

    async def all(self, request: web.Request) -> web.StreamResponse:
        """GET /healthz: `exclude` leaves a check out, `verbose` names each. Why one fails is told
        at its own path only, as by a kubelet. HTTPInternalServerError: one fails."""
        excluded = dict.fromkeys(request.query.getall("exclude", []))
        lines, well = [], True
        for name, check in self._checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok\n")
            elif check():
                lines.append(f"[-]{name} failed: reason withheld\n")
                well = False
            else:
                lines.append(f"[+]{name} ok\n")
        if unknown := ",".join(f'"{one}"' for one in sorted(excluded.keys() - self._checks)):
            lines.append(f"warn: some health checks cannot be excluded: no matches for {unknown}\n")
        said = "".join(lines)
        if not well:
            raise web.HTTPInternalServerError(text=f"{said}healthz check failed\n")
        text = f"{said}healthz check passed\n" if "verbose" in request.query else "ok"
        return web.Response(text=text)

    async def one(self, request: web.Request) -> web.StreamResponse:
        """GET /healthz/NAME. HTTPInternalServerError: it fails, and why."""
        if problem := self._checks[request.path.rpartition("/")[2]]():
            raise web.HTTPInternalServerError(text=f"internal server error: {problem}\n")
        return web.Response(text="ok")
