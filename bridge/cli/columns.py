"""Pods, jobs, events and runs as the columns that kubectl prints. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge.cli.output import age, since
from bridge.cli.select import Found, RunState, backend_of, backends_of, shown
from bridge.local.outcome import condition, pod_over
from bridge.pods import Manifest
from bridge.times import parse_rfc3339, rfc3339

NONE = "<none>"


def is_sidecar(pod: Manifest, name: str) -> bool:
    """Whether that init container restarts for ever beside the others."""
    return any(
        one["name"] == name and one.get("restartPolicy") == "Always"
        for one in pod["spec"].get("initContainers") or ()
    )


# Pods.


def pod_status(pod: Manifest, now: float) -> tuple[str, str, str]:
    """(ready, status, restarts) as kubectl computes them (printPod)."""
    status = pod.get("status") or {}
    phase = status.get("phase", "Pending")
    reason = status.get("reason") or phase
    init, initializing = _init(pod, status)
    ready, word, restarted = init
    reason = word or reason
    total = len(pod["spec"]["containers"]) + sum(
        one.get("restartPolicy") == "Always" for one in pod["spec"].get("initContainers") or ()
    )
    if not initializing or _is_true(status, "Initialized"):
        restarted = [one for one in restarted if is_sidecar(pod, one["name"])]
        main = status.get("containerStatuses") or ()
        restarted += main
        running, reason = _main(main, reason, _is_true(status, "Ready"))
        ready += running
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif phase not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return f"{ready}/{total}", reason, _restarts(restarted, now)


def _init(pod: Manifest, status: Manifest) -> tuple[tuple[int, str, list[Manifest]], bool]:
    """((ready, reason, those that were looked at), whether one still has to end)."""
    ready, seen = 0, []
    total = len(pod["spec"].get("initContainers") or ())
    for index, one in enumerate(status.get("initContainerStatuses") or ()):
        seen.append(one)
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if is_sidecar(pod, one["name"]) and one.get("started"):
            ready += bool(one.get("ready"))
            continue
        waiting = (state.get("waiting") or {}).get("reason", "")
        if ended is not None:
            return (ready, f"Init:{_end(ended)}", seen), True
        if waiting and waiting != "PodInitializing":
            return (ready, f"Init:{waiting}", seen), True
        return (ready, f"Init:{index}/{total}", seen), True
    return (ready, "", seen), False


def _main(statuses: Sequence[Manifest], reason: str, pod_ready: bool) -> tuple[int, str]:
    ready, failure = 0, ""
    for one in reversed(statuses):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if waiting := (state.get("waiting") or {}).get("reason"):
            reason = waiting
        elif ended is not None:
            reason = _end(ended)
            if ended.get("exitCode"):
                failure = reason
        elif one.get("ready") and "running" in state:
            ready += 1
    if reason == "Completed":
        if ready and pod_ready:
            reason = "Running"
        elif failure:
            reason = failure
        elif ready:
            reason = "NotReady"
    return ready, reason


def _end(ended: Manifest) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _restarts(statuses: Iterable[Manifest], now: float) -> str:
    count, last = 0, ""
    for one in statuses:
        count += one.get("restartCount", 0)
        ended = (one.get("lastState") or {}).get("terminated") or {}
        last = max(last, ended.get("finishedAt") or "")
    return f"{count} ({since(last, now)} ago)" if count and last else str(count)


def _is_true(status: Manifest, kind: str) -> bool:
    return any(
        one["type"] == kind and one["status"] == "True" for one in status.get("conditions") or ()
    )


def pod_rows(
    found: Iterable[Found], now: float, *, wide: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of pods."""
    headers = ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    if wide:
        headers += ["IP", "NODE", "BACKEND"]
    rows = []
    for one in found:
        pod = one.object
        ready, status, restarts = pod_status(pod, now)
        born = since(pod["metadata"].get("creationTimestamp"), now)
        row = [one.name, ready, status, restarts, born]
        if wide:
            address = (pod.get("status") or {}).get("podIP") or NONE
            node = pod["spec"].get("nodeName") or NONE
            row += [address, node, shown(one.state, backend_of(one.state, pod))]
        rows.append(row)
    return headers, rows


# Jobs.


def job_status(job: Manifest) -> str:
    """Complete, Failed, Suspended, ...: as kubectl's STATUS."""
    order = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((kind for kind in order if condition(job, kind)), "Running")


def completions(job: Manifest) -> str:
    """`3/12`, `1/1 of 4` for a work queue."""
    spec, done = job["spec"], (job.get("status") or {}).get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def job_duration(job: Manifest, now: float) -> str:
    """How long it has taken, or takes by now; empty before it starts."""
    status = job.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime")
    failed = condition(job, "Failed")
    if not end and failed is not None:
        # kubectl lets the clock of a failed Job run on, which tells nobody anything.
        end = failed.get("lastTransitionTime")
    stop = parse_rfc3339(end) if end else now
    return age(stop - parse_rfc3339(status["startTime"]))


def job_rows(
    found: Iterable[Found], now: float, *, wide: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of Jobs."""
    headers = ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    if wide:
        headers += ["CONTAINERS", "IMAGES"]
    rows = []
    for one in found:
        job = one.object
        born = since(job["metadata"].get("creationTimestamp"), now)
        row = [one.name, job_status(job), completions(job), job_duration(job, now), born]
        if wide:
            containers = job["spec"]["template"]["spec"]["containers"]
            row.append(",".join(each["name"] for each in containers))
            row.append(",".join(each.get("image") or NONE for each in containers))
        rows.append(row)
    return headers, rows


# Events.


def event_rows(
    found: Iterable[Found], now: float, *, wide: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of events."""
    headers = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    if wide:
        headers += ["FIRST SEEN", "COUNT", "NAME"]
    rows = []
    for one in found:
        event = one.object
        about = event["involvedObject"]
        target = f"{about['kind'].lower()}/{about['name']}"
        seen = since(event.get("lastTimestamp"), now)
        row = [seen, event["type"], event["reason"], target, event["message"].strip()]
        if wide:
            row += [since(event.get("firstTimestamp"), now), str(event["count"]), one.name]
        rows.append(row)
    return headers, rows


ROWS = {"Pod": pod_rows, "Job": job_rows, "Event": event_rows}
"""Headers and rows by kind."""


# Runs.


def run_rows(
    states: Iterable[RunState], now: float, *, wide: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of runs."""
    headers = ["NAME", "STATUS", "PODS", "FAILED", "AGE", "BACKEND"]
    if wide:
        headers += ["ATTENDED BY", "JOBS", "RUNNING", "WHY"]
    rows = []
    for state in states:
        done, total, failed = state.counts
        known = not state.problem or state.pods or state.jobs
        pods = f"{done}/{total}" if known else "?"
        born = age(now - state.run.wanted.created)
        names = ",".join(shown(state, one) for one in backends_of(state)) or NONE
        row = [state.name, state.status, pods, str(failed) if known else "?", born, names]
        if wide:
            phases = [pod.get("status", {}).get("phase") for pod in state.pods.values()]
            who = str(state.attendant) if state.attendant is not None else NONE
            why = state.problem or ", ".join(state.outcome.failed)
            row += [who, str(len(state.jobs)), str(phases.count("Running")), why]
        rows.append(row)
    return headers, rows


def run_object(state: RunState) -> dict[str, Any]:
    """A run as `-o json` prints it."""
    done, total, failed = state.counts
    outcome = state.outcome
    status: dict[str, Any] = {
        "phase": state.status,
        "pods": {"total": total, "succeeded": done, "failed": failed},
        "backends": backends_of(state),
        "attended": state.attendant is not None,
    }
    if state.attendant is not None:
        status["attendant"] = state.attendant
    if state.problem:
        status["message"] = state.problem
    if outcome.over and not state.problem and not state.run.deleting:
        status["exitCode"] = int(outcome.code)
    if outcome.failed:
        status["failed"] = list(outcome.failed)
    wanted = state.run.wanted
    return {
        "apiVersion": "podbridge.io/v1",
        "kind": "Run",
        "metadata": {
            "name": wanted.name,
            "uid": wanted.uid,
            "creationTimestamp": rfc3339(wanted.created),
        },
        "status": status,
    }


def why_waiting(pod: Manifest) -> list[str]:
    """What keeps a pod that is not over from running, one line for each reason."""
    if pod_over(pod):
        return []
    status = pod.get("status") or {}
    lines: list[str] = []
    if status.get("reason") or status.get("message"):
        said = ": ".join(one for one in (status.get("reason"), status.get("message")) if one)
        lines.append(said)
    for group in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(group) or ():
            if line := _why_container(one):
                lines.append(line)
    if not lines and status.get("phase", "Pending") == "Pending":
        lines.append("the provider has not told anything of it yet")
    return list(dict.fromkeys(lines))


def _why_container(one: Mapping[str, Any]) -> str:
    waiting = (one.get("state") or {}).get("waiting")
    if not waiting:
        return ""
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    ended = (one.get("lastState") or {}).get("terminated")
    said = ": ".join(part for part in (reason, message) if part)
    if ended is not None:
        said += f" (it last ended with exit code {ended.get('exitCode', 0)}, {_end(ended)})"
    return f"container {one['name']}: {said}"
