"""Measure podbridge on this machine and print each figure beside its target.

Usage: python tools/bench.py [--json] [PART ...]

Nothing here is a test: a missed target is printed and the exit code stays 0. It is 1 only where
something failed to run at all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench_engine
import bench_fargate
import bench_helper
import bench_rpc
import bench_streams
import bench_virtual
from bench_kit import PODBRIDGE, Figure, NotHere, median, run

PODS = 500
PARALLELISM = 50


def startup(environment: Mapping[str, str], _: Path) -> Iterator[Figure]:
    """The time that the command itself takes."""
    seconds = median(10, [*PODBRIDGE, "--help"], environment)
    yield Figure("podbridge --help", seconds, "s", 0.3, note="median of 10")


def one_pod(environment: Mapping[str, str], _: Path) -> Iterator[Figure]:
    """A pod that does nothing, from the command's start to its end."""
    command = [*PODBRIDGE, "run", "one", "--on", "process", "--", "true"]
    seconds = median(7, command, environment)
    yield Figure("run of one pod on process", seconds, "s", 1.0, note="median of 7")


def many_pods(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """A Job of many pods that do nothing."""
    file = home / "job.json"
    file.write_text(json.dumps(_job()))
    ran = run([*PODBRIDGE, "run", "-f", str(file), "--on", "process"], environment)
    note = f"{PODS} pods, {PARALLELISM} at once"
    yield Figure("Job on process", PODS / ran.seconds, "pods/s", 70, at_least=True, note=note)
    yield Figure("  its peak memory", ran.memory / 1e6, "MB", 200)


def _job() -> dict[str, Any]:
    container = {"name": "main", "image": "none", "command": ["true"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "many"},
        "spec": {
            "completions": PODS,
            "parallelism": PARALLELISM,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def provider(environment: Mapping[str, str], home: Path) -> Iterator[Figure]:
    """A provider of its own process with `null`, and a bare server for comparison."""
    created, echo = bench_rpc.measure(PODBRIDGE, environment, home)
    note = f"{created.calls} calls, {bench_rpc.IN_FLIGHT} in flight"
    yield Figure("CreatePod over gRPC", created.rate, "/s", 1500, at_least=True, note=note)
    yield Figure("  latency p50", created.percentile(0.50) * 1e3, "ms")
    yield Figure("  latency p99", created.percentile(0.99) * 1e3, "ms", 50)
    yield Figure(
        "  last change delivered after", created.delivered, "s", note="from the first call"
    )
    yield Figure("  pods delivered", created.calls / created.delivered, "/s", 1500, at_least=True)
    yield Figure("bare grpc.aio echo", echo.rate, "/s", note="the same messages")
    yield Figure("  CreatePod to echo", created.rate / echo.rate, "")


PARTS: Sequence[Callable[[Mapping[str, str], Path], Iterator[Figure]]] = (
    startup,
    one_pod,
    many_pods,
    provider,
    bench_streams.forward,
    bench_engine.exec_round_trip,
    bench_engine.pods_on_engine,
    bench_engine.quiet,
    bench_helper.helper,
    bench_fargate.fargate,
    bench_virtual.virtual_node,
)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns."""
    rows = [("", "measured", "target", "", "")]
    for one in figures:
        bound = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:,g}"
        target = f"{bound} {one.unit}" if bound else ""
        rows.append((one.name, f"{_number(one)} {one.unit}", target, one.verdict, one.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"
        f"  {row[3]:<{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )


def _number(one: Figure) -> str:
    return f"{one.measured:,.0f}" if one.measured >= 100 else f"{one.measured:.2f}"


def main() -> int:
    """The console script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    known = [part.__name__ for part in PARTS]
    parser.add_argument("part", nargs="*", metavar="PART", help=f"some of: {', '.join(known)}")
    given = parser.parse_args()
    as_json: bool = given.json
    if unknown := {*given.part} - {*known}:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    figures: list[Figure] = []
    failures: list[str] = []
    skipped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="podbridge-bench-", ignore_cleanup_errors=True) as made:
        home = Path(made)
        environment = _environment(home)
        for part in PARTS:
            if given.part and part.__name__ not in given.part:
                continue
            print(f"measuring: {part.__name__}", file=sys.stderr)
            try:
                figures += part(environment, home)
            except NotHere as missing:
                skipped.append(f"{part.__name__}: {missing}")
            except (RuntimeError, OSError) as error:
                failures.append(f"{part.__name__}: {error}")
    about = machine()
    if as_json:
        lines = [asdict(one) | {"verdict": one.verdict} for one in figures]
        print(
            json.dumps(
                {"machine": about, "figures": lines, "failures": failures, "skipped": skipped},
                indent=2,
            )
        )
    else:
        print("\n".join(f"{name:<8}{value}" for name, value in about.items()), end="\n\n")
        print(table(figures))
    for one in skipped:
        print(f"not measured: {one}", file=sys.stderr)
    for failure in failures:
        print(f"failed to run: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _environment(home: Path) -> dict[str, str]:
    """Ours, without what would make podbridge read a configuration of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PODBRIDGE_")}
    # Compiled modules are kept between runs, as where the package is installed.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    folders = {
        "PYTHONPYCACHEPREFIX": "compiled",
        "XDG_CONFIG_HOME": "config",
        "XDG_RUNTIME_DIR": "runtime",
        "XDG_STATE_HOME": "state",
    }
    for variable, name in folders.items():
        (home / name).mkdir(mode=0o700)
        kept[variable] = str(home / name)
    return kept


if __name__ == "__main__":
    sys.exit(main())
