"""Run a control plane until it is told to stop.

Usage: python tools/control_plane/run.py [--version 1.36] [--metrics] [-- COMMAND ...]

Prints the kubeconfig of an administrator; ^C or SIGTERM stops it all in order. A COMMAND runs
beside it, with KUBECONFIG set, and is stopped first: a virtual node, for instance.

`--held` is for programs: the first line on stdout is a JSON object that says where everything is;
then lines `stop NAME` and `start NAME` on stdin are obeyed and answered, and the end of stdin, or
of the process that started it, is the end of the control plane.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.control_plane import assets, handle
from tools.control_plane.components import API_SERVER, METRICS, PORTS, SCHEDULER, Setup
from tools.control_plane.plane import STOP, Broken, Plane, parent_is
from tools.control_plane.recipes import VERSIONS, release

EMPTY = 30
"""Seconds for all pods to end, once the cluster is to stop."""
LOOK = 0.25
"""Seconds between two looks at whether all still run, and whoever holds us too."""


class Told(Exception):
    """A signal, the end of stdin or of our parent: stop."""


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _told)
    parent = os.getppid()
    try:
        programs = dict(assets.locate(given.version))
        with contextlib.nullcontext() if given.metrics else contextlib.suppress(assets.Missing):
            programs |= assets.locate(given.version, [METRICS])
    except assets.Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    with handle.folder_at(given.folder, "podbridge-cluster-") as folder:
        extra: dict[str, list[str]] = {}
        if given.trusting:
            nobody = "--kubelet-certificate-authority="
            extra = {API_SERVER: [nobody], METRICS: [nobody, "--kubelet-insecure-tls"]}
        for one in given.extra:
            name, _, flag = one.partition("=")
            extra.setdefault(name, []).append(flag)
        plane = Plane(Setup(folder, programs, given.audit, extra))
        try:
            plane.start()
            if given.metrics:
                plane.start_one(METRICS)
            if given.held:
                _serve(plane, parent, given.version)
            else:
                _show(plane, given.version, given.command)
        except (Told, BrokenPipeError):
            return 0
        except Broken as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            # Nothing that comes now may keep us from stopping in order.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            plane.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--version", choices=VERSIONS, default=VERSIONS[0], help="Kubernetes' minor"
    )
    parser.add_argument("--metrics", action="store_true", help="with metrics-server")
    parser.add_argument("--audit", action="store_true", help="with a line a call in audit.log")
    parser.add_argument("--folder", type=Path, help="for its files; else a temporary one")
    parser.add_argument(
        "--trusting", action="store_true", help="do not verify kubelets, as few clusters do"
    )
    parser.add_argument("--held", action="store_true", help="see above")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="COMPONENT=FLAG",
        help="one more flag: kube-controller-manager=--node-monitor-grace-period=20s",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what runs beside it")
    return parser


def _told(number: int, _: object) -> None:
    raise Told(signal.Signals(number).name)


def _show(plane: Plane, version: str, command: Sequence[str]) -> None:
    """For people: says where it is, runs the command beside it, and waits."""
    kubectl = plane.setup.programs["kubectl"]
    print(f"Kubernetes {release(version)} at {plane.server}; ^C stops it. In another terminal:")
    print(f"  export KUBECONFIG={plane.admin}\n  {kubectl} get pods -A", flush=True)
    # What the command keeps goes with the cluster that it is about.
    state = plane.setup.folder / "state"
    environment = {**os.environ, "KUBECONFIG": str(plane.admin), "XDG_STATE_HOME": str(state)}
    beside = None
    if command:
        beside = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            preexec_fn=plane.die_with_us,  # noqa: PLW1509 - there is one thread
        )
    try:
        while not (ended := plane.ended()):
            if beside is not None and beside.poll() is not None:
                raise Broken(f"{command[0]} has ended with {beside.returncode}")
            time.sleep(LOOK)
        raise Broken(ended)
    finally:
        if beside is not None:
            try:
                if beside.poll() is None and not plane.ended():
                    _empty(plane)
            finally:
                beside.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    beside.wait(STOP)
                beside.kill()
                beside.wait()


def _empty(plane: Plane) -> None:
    """Deletes every pod while its node is still there: none outlives its cluster. Those that
    controllers make in their place are bound nowhere."""
    print("ending the pods; ^C again leaves them", flush=True)
    plane.stop_one(SCHEDULER)
    words = ["delete", "pods", "--all", "--all-namespaces", "--grace-period=2"]
    subprocess.run(
        [plane.setup.programs["kubectl"], *words, f"--timeout={EMPTY}s"],
        env={**os.environ, "KUBECONFIG": str(plane.admin)},
        stdout=subprocess.DEVNULL,
        check=False,
    )


def _serve(plane: Plane, parent: int, version: str) -> None:
    """For a program that holds us: obeys it until it is gone."""
    _answer(
        {
            "version": release(version),
            "server": plane.server,
            "folder": str(plane.setup.folder),
            "programs": {name: str(path) for name, path in plane.setup.programs.items()},
            "pids": _pids(plane),
        }
    )
    while parent_is(parent):
        if ended := plane.ended():
            raise Broken(ended)
        readable, _, _ = select.select([sys.stdin], [], [], LOOK)
        if not readable:
            continue
        # One line at a time: whoever holds us waits for each answer.
        line = os.read(sys.stdin.fileno(), 4096).decode()
        if not line:
            return
        verb, _, name = line.strip().partition(" ")
        if verb not in ("stop", "start") or name not in plane.setup.programs or name not in PORTS:
            _answer({"error": f"no such order: {line.strip()}"})
            continue
        try:
            (plane.stop_one if verb == "stop" else plane.start_one)(name)
        except Broken as error:
            plane.stop_one(name)
            _answer({"error": str(error)})
        else:
            _answer({"pids": _pids(plane)})


def _pids(plane: Plane) -> dict[str, int]:
    return {name: process.pid for name, process in plane.processes.items()}


def _answer(words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
