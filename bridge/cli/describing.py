"""Runs, Jobs and pods told in full, as `kubectl describe` tells them, and why they wait. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bridge.cli.columns import (
    completions,
    job_duration,
    job_status,
    pod_rows,
    pod_status,
    why_waiting,
)
from bridge.cli.output import age, plain, since, table
from bridge.cli.select import Found, RunState, backend_of, backends_of, pods_of, shown
from bridge.local.outcome import owner
from bridge.pods import Manifest
from bridge.times import parse_rfc3339

NONE = "<none>"
_SHOWN = 20
"""Pods of one Job that are listed: those that wait or failed first."""


class _Text:
    """Lines of `Label:  value`, values of one block aligned."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._block: list[tuple[int, str, str]] = []

    def add(self, label: str, value: str = "", level: int = 0) -> None:
        """One label with its value; lines of a value stand below each other."""
        first, *rest = plain(value).split("\n")
        self._block.append((level, f"{label}:", first))
        self._block.extend((level, "", one) for one in rest)

    def line(self, text: str, level: int = 0) -> None:
        """One line as it is."""
        self.flush()
        self.lines.append("  " * level + plain(text))

    def flush(self) -> None:
        """Ends a block."""
        width = max((2 * level + len(label) for level, label, _ in self._block), default=0) + 2
        for level, label, value in self._block:
            left = "  " * level + label
            self.lines.append(f"{left.ljust(width)}{value}".rstrip())
        self._block = []

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]], level: int = 1) -> None:
        """A table below a label."""
        self.flush()
        self.lines += ["  " * level + one for one in table(headers, rows, colour=False)]

    def __str__(self) -> str:
        self.flush()
        return "\n".join(self.lines)


def _moment(stamp: str | None) -> str:
    if not stamp:
        return NONE
    moment = datetime.fromtimestamp(parse_rfc3339(stamp), UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S +0000")


def _mapping(text: _Text, label: str, values: Mapping[str, Any] | None, level: int = 0) -> None:
    pairs = [f"{key}={value}" for key, value in sorted((values or {}).items())]
    text.add(label, "\n".join(pairs) or NONE, level)


# A run.


def describe_run(state: RunState, now: float) -> str:
    """A run: what it is made of, how it stands, what waits and why, what has happened."""
    text = _Text()
    wanted = state.run.wanted
    done, total, failed = state.counts
    text.add("Run", wanted.name)
    text.add("UID", wanted.uid)
    text.add("Status", state.status)
    if state.problem:
        text.add("Message", state.problem)
    if state.outcome.failed:
        text.add("Failed", ", ".join(state.outcome.failed))
    who = f"process {state.attendant}" if state.attendant is not None else "nobody"
    if state.resumable:
        who += f" (podbridge attach {wanted.name} resumes it)"
    text.add("Attended By", who)
    text.add("Backends", ", ".join(shown(state, one) for one in backends_of(state)) or NONE)
    text.add("Age", age(now - wanted.created))
    text.add("Pods", f"{done}/{total} succeeded, {failed} failed")
    kinds: dict[str, list[str]] = {}
    for one in wanted.objects:
        kinds.setdefault(one["kind"], []).append(one["metadata"]["name"])
    text.add("Objects", "\n".join(f"{kind}: {', '.join(kinds[kind])}" for kind in kinds))
    _run_jobs(text, state, now)
    _run_pods(text, [Found(state, one) for one in state.pods.values()], now)
    _waiting(text, state, state.pods.values())
    _events(text, state, lambda _: True, now)
    return str(text)


def _run_jobs(text: _Text, state: RunState, now: float) -> None:
    if state.jobs:
        text.line("Jobs:")
        rows = [
            [job["metadata"]["name"], job_status(job), completions(job), job_duration(job, now)]
            for job in state.jobs.values()
        ]
        text.table(["NAME", "STATUS", "COMPLETIONS", "DURATION"], rows)


def _run_pods(text: _Text, pods: list[Found], now: float) -> None:
    if not pods:
        text.add("Pods Of It", NONE)
        return
    text.line("Pods Of It:")
    order = {"Failed": 0, "Pending": 1, "Running": 2}
    pods = sorted(pods, key=lambda one: order.get(one.object["status"].get("phase"), 3))
    text.table(*pod_rows(pods[:_SHOWN], now, wide=False))
    if len(pods) > _SHOWN:
        text.line(f"... and {len(pods) - _SHOWN} more: podbridge get pods", 1)


def _waiting(text: _Text, state: RunState, pods: Iterable[Manifest]) -> None:
    """Why pods wait: pods that wait for the same reason in one line."""
    reasons: dict[str, list[str]] = {}
    for pod in pods:
        whys = why_waiting(pod)
        if whys and state.resumable and (pod.get("status") or {}).get("phase") == "Pending":
            whys = [f"nobody attends the run: podbridge attach {state.name} resumes it"]
        for why in whys:
            reasons.setdefault(why, []).append(pod["metadata"]["name"])
    if not reasons:
        return
    text.line("Waiting:")
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        text.line(f"{', '.join(names[:3])}{more}: {why}", 1)


def _events(text: _Text, state: RunState, wanted: Callable[[Manifest], bool], now: float) -> None:
    found = [one for one in state.events.values() if wanted(one["involvedObject"])]
    if not found:
        said = NONE if state.attendant is not None else "<kept only while the run is attended>"
        text.add("Events", said)
        return
    text.line("Events:")
    rows = []
    for one in sorted(found, key=lambda one: str(one.get("lastTimestamp"))):
        seen = since(one.get("lastTimestamp"), now)
        if one.get("count", 1) > 1:
            seen += f" (x{one['count']} over {since(one.get('firstTimestamp'), now)})"
        about = one["involvedObject"]
        message = one["message"].strip()
        if about.get("fieldPath"):
            message = f"{about['fieldPath']}: {message}"
        target = f"{about['kind'].lower()}/{about['name']}"
        rows.append([one["type"], one["reason"], seen, target, message])
    text.table(["TYPE", "REASON", "AGE", "OBJECT", "MESSAGE"], rows)


# A Job.


def describe_job(found: Found, now: float) -> str:
    """A Job with its pods."""
    text = _Text()
    job, state = found.object, found.state
    metadata, spec, status = job["metadata"], job["spec"], job.get("status") or {}
    text.add("Name", metadata["name"])
    text.add("Namespace", metadata.get("namespace", "default"))
    text.add("Run", state.name)
    _mapping(text, "Labels", metadata.get("labels"))
    _mapping(text, "Annotations", metadata.get("annotations"))
    text.add("Status", job_status(job))
    for label, key in _JOB_FIELDS:
        if spec.get(key) is not None:
            text.add(label, str(spec[key]))
    text.add("Start Time", _moment(status.get("startTime")))
    if status.get("completionTime"):
        text.add("Completed At", _moment(status["completionTime"]))
    text.add("Duration", job_duration(job, now) or NONE)
    counted = f"{status.get('active', 0)} Active ({status.get('ready', 0)} Ready)"
    ended = f"{status.get('succeeded', 0)} Succeeded / {status.get('failed', 0)} Failed"
    text.add("Pods Statuses", f"{counted} / {ended}")
    if spec.get("completionMode") == "Indexed":
        text.add("Completed Indexes", status.get("completedIndexes") or NONE)
        if status.get("failedIndexes"):
            text.add("Failed Indexes", status["failedIndexes"])
    _conditions(text, status)
    text.line("Pod Template:")
    _template(text, spec["template"])
    pods = pods_of(found)
    _run_pods(text, pods, now)
    _waiting(text, state, (one.object for one in pods))
    names = {one.name for one in pods} | {metadata["name"]}
    _events(text, state, lambda about: about["name"] in names, now)
    return str(text)


_JOB_FIELDS = (
    ("Parallelism", "parallelism"),
    ("Completions", "completions"),
    ("Completion Mode", "completionMode"),
    ("Suspend", "suspend"),
    ("Backoff Limit", "backoffLimit"),
    ("Backoff Limit Per Index", "backoffLimitPerIndex"),
    ("Max Failed Indexes", "maxFailedIndexes"),
    ("Active Deadline Seconds", "activeDeadlineSeconds"),
    ("TTL Seconds After Finished", "ttlSecondsAfterFinished"),
)


def _template(text: _Text, template: Manifest) -> None:
    spec = template["spec"]
    _mapping(text, "Labels", (template.get("metadata") or {}).get("labels"), 1)
    for label, key in (("Init Containers", "initContainers"), ("Containers", "containers")):
        if spec.get(key):
            text.add(label, "", 1)
            for container in spec[key]:
                _container(text, container, None, 2)
    _volumes(text, spec, 1)


def _conditions(text: _Text, status: Manifest) -> None:
    if status.get("conditions"):
        text.line("Conditions:")
        rows = [
            [one["type"], one["status"], one.get("reason") or "", one.get("message") or ""]
            for one in status["conditions"]
        ]
        text.table(["TYPE", "STATUS", "REASON", "MESSAGE"], rows)


# A pod.


def describe_pod(found: Found, now: float) -> str:
    """A pod with its containers, conditions, volumes and events."""
    text = _Text()
    pod, state = found.object, found.state
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    text.add("Name", metadata["name"])
    text.add("Namespace", metadata.get("namespace", "default"))
    text.add("Run", state.name)
    text.add("Backend", shown(state, backend_of(state, pod)))
    text.add("Node", spec.get("nodeName") or NONE)
    text.add("Start Time", _moment(status.get("startTime")))
    _mapping(text, "Labels", metadata.get("labels"))
    _mapping(text, "Annotations", metadata.get("annotations"))
    text.add("Status", _pod_phase(pod, now))
    for label, key in (("Reason", "reason"), ("Message", "message")):
        if status.get(key):
            text.add(label, status[key])
    text.add("IP", status.get("podIP") or NONE)
    if job := owner(pod):
        text.add("Controlled By", f"Job/{job}")
    for label, key, states in _GROUPS:
        if spec.get(key):
            text.flush()
            text.line(f"{label}:")
            told = {one["name"]: one for one in status.get(states) or ()}
            for container in spec[key]:
                _container(text, container, told.get(container["name"], {}), 1)
    _conditions(text, status)
    _volumes(text, spec, 0)
    text.add("QoS Class", status.get("qosClass") or NONE)
    _waiting(text, state, [pod])
    uid = metadata["uid"]
    _events(text, state, lambda about: about["uid"] == uid, now)
    return str(text)


_GROUPS = (
    ("Init Containers", "initContainers", "initContainerStatuses"),
    ("Containers", "containers", "containerStatuses"),
    ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
)


def _pod_phase(pod: Manifest, now: float) -> str:
    phase = str((pod.get("status") or {}).get("phase", "Pending"))
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata and phase not in ("Succeeded", "Failed"):
        left = metadata.get("deletionGracePeriodSeconds", 0)
        return f"Terminating (grace period {left}s)"
    shown = pod_status(pod, now)[1]
    return phase if shown in (phase, "Completed") else f"{phase} ({shown})"


def _container(text: _Text, container: Manifest, status: Manifest | None, level: int) -> None:
    below = level + 1
    text.add(container["name"], "", level)
    if status:
        text.add("Container ID", status.get("containerID") or NONE, below)
    text.add("Image", container.get("image") or NONE, below)
    if ports := container.get("ports"):
        shown = [f"{one['containerPort']}/{one.get('protocol', 'TCP')}" for one in ports]
        text.add("Ports", ", ".join(shown), below)
    for label, key in (("Command", "command"), ("Args", "args")):
        if container.get(key):
            text.add(label, "\n".join(container[key]), below)
    if container.get("workingDir"):
        text.add("Working Dir", container["workingDir"], below)
    if status is not None:
        _state(text, "State", status.get("state") or {}, below)
        if (status.get("lastState") or {}).get("terminated"):
            _state(text, "Last State", status["lastState"], below)
        text.add("Ready", str(bool(status.get("ready"))), below)
        text.add("Restart Count", str(status.get("restartCount", 0)), below)
    resources = container.get("resources") or {}
    for label in ("limits", "requests"):
        if resources.get(label):
            _mapping(text, label.capitalize(), resources[label], below)
    _environment(text, container, below)
    mounts = [
        f"{one['mountPath']} from {one['name']} ({'ro' if one.get('readOnly') else 'rw'}"
        + (f',path="{one["subPath"]}"' if one.get("subPath") else "")
        + ")"
        for one in container.get("volumeMounts") or ()
    ]
    text.add("Mounts", "\n".join(mounts) or NONE, below)


def _state(text: _Text, label: str, state: Manifest, level: int) -> None:
    below = level + 1
    if running := state.get("running"):
        text.add(label, "Running", level)
        text.add("Started", _moment(running.get("startedAt")), below)
    elif ended := state.get("terminated"):
        text.add(label, "Terminated", level)
        for name, key in (("Reason", "reason"), ("Message", "message")):
            if ended.get(key):
                text.add(name, ended[key].rstrip("\n"), below)
        text.add("Exit Code", str(ended.get("exitCode", 0)), below)
        if ended.get("signal"):
            text.add("Signal", str(ended["signal"]), below)
        text.add("Started", _moment(ended.get("startedAt")), below)
        text.add("Finished", _moment(ended.get("finishedAt")), below)
    else:
        text.add(label, "Waiting", level)
        waiting = state.get("waiting") or {}
        for name, key in (("Reason", "reason"), ("Message", "message")):
            if waiting.get(key):
                text.add(name, waiting[key], below)


def _environment(text: _Text, container: Manifest, level: int) -> None:
    lines = []
    for one in container.get("envFrom") or ():
        for kind, key in (("config map", "configMapRef"), ("secret", "secretRef")):
            if key in one:
                prefix = f" with prefix '{one['prefix']}'" if one.get("prefix") else ""
                lines.append(f"<all of {kind} '{one[key]['name']}'{prefix}>")
    lines += [f"{one['name']}: {_value(one)}" for one in container.get("env") or ()]
    text.add("Environment", "\n".join(lines) or NONE, level)


def _value(entry: Manifest) -> str:
    """A variable's value or where it comes from: never what a Secret holds."""
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value", ""))
    if key := source.get("secretKeyRef"):
        return f"<set to the key '{key['key']}' in secret '{key['name']}'>"
    if key := source.get("configMapKeyRef"):
        return f"<set to the key '{key['key']}' of config map '{key['name']}'>"
    if key := source.get("fieldRef"):
        return f"({key.get('apiVersion', 'v1')}:{key['fieldPath']})"
    if key := source.get("resourceFieldRef"):
        return f"({key['resource']})"
    return f"({next(iter(source))})"


def _volumes(text: _Text, spec: Manifest, level: int) -> None:
    lines = []
    for volume in spec.get("volumes") or ():
        kind = next((key for key in volume if key != "name"), "emptyDir")
        source = volume.get(kind) or {}
        name = source.get("name") or source.get("secretName") or source.get("path") or ""
        lines.append(f"{volume['name']}: {kind}{f' {name}' if name else ''}")
    text.add("Volumes", "\n".join(lines) or NONE, level)
