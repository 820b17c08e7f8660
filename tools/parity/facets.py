"""What is compared: a recording, taken apart into facets that do not depend on the node. Pure.

A facet is one thing that can be told of a pod, Job or container (its phase, one condition, the
state of one container, its log), as the list of the values that it had one after the other. How
facets lie to one another in time is not compared: nothing in Kubernetes promises it.

What may lawfully differ is not in it: times, addresses, UIDs, names of nodes and namespaces, IDs of
containers and images, messages in the words of a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tools.parity.conditions import count
from tools.parity.recording import News, Recording

Object = Mapping[str, Any]
BRIEF = 1.5
"""Seconds: see RULES."""
RULES = (
    f"A state of a container that was there for less than {BRIEF} s, and what follows from it:"
    " a kubelet looks at its containers once a second (`genericPlegRelistPeriod`) and tells what it"
    " sees then. Never why a container waits.",
    "The very first state of a pod and its containers, before anything was started: the first"
    " status that a node writes may be of a pod that is further already.",
    "How a run ended, as the state, where the next run or its back-off follows: `lastState` says it"
    " as well, and that is compared.",
    "`CrashLoopBackOff`, where another run follows: a kubelet tells of its back-off when it next"
    " looks at the pod, as much as ten seconds later. Its event is compared.",
)
"""What may be missing on one side, and why. Everything else is a difference."""
EVENTS_LATE = 1.0
"""Seconds that an event may come after what it tells of."""
PASSING = (
    "phase",
    "condition Ready",
    "condition ContainersReady",
    "condition PodReadyToStartContainers",
)
"""Facets of a pod that follow from the states of its containers and its sandbox."""
BACK_OFF = "waiting CrashLoopBackOff"
STARTS = ("Created", "Started", "Killing")
"""Events that are told once for each time that it happens: their number is compared."""
CONTROL_PLANE = (
    "default-scheduler",
    "job-controller",
    "taint-eviction-controller",
    "node-controller",
)
"""Whose events say nothing about a node."""
GROUPS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
INDEX = "batch.kubernetes.io/job-completion-index"
_IDS = re.compile(r"(?<=://)[0-9a-f]{64}\b")
_TIMES = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True)
class Seen:
    """One value of a facet."""

    text: str
    brief: bool = False
    """Whether it may be missing on the other side."""


@dataclass(frozen=True)
class Facet:
    """The values of one thing: in their order, or as a set."""

    values: Sequence[Seen]
    ordered: bool = True

    def __str__(self) -> str:
        joint = " → " if self.ordered else ", "
        return joint.join(one.text for one in self.values) or "nothing"


Key = tuple[str, str]
"""The object, and the facet's name."""


def facets(recording: Recording) -> dict[Key, Facet]:
    """All of a recording's."""
    made: dict[Key, Facet] = {}
    heard = [one for one in recording.news if one.at <= recording.cut]
    late = [one for one in recording.news if one.kind == "Event" and _is_late(one, recording.cut)]
    recording = replace(recording, news=[*heard, *late])
    uids = pod_keys(recording.news)
    names: dict[str, str] = {}
    for uid, key in uids.items():
        mine = [one for one in recording.news if one.object["metadata"].get("uid") == uid]
        names[mine[0].name] = key
        for name, facet in pod(mine).items():
            made[key, name] = facet
        events = list(_events_of(recording.news, uid))
        made[key, "events"] = Facet(sorted(told(events), key=lambda one: one.text), ordered=False)
    for name in {one.name for one in recording.news if one.kind == "Job"}:
        mine = [one for one in recording.news if (one.kind, one.name) == ("Job", name)]
        for facet_name, facet in job(mine).items():
            made[f"job {name}", facet_name] = facet
    changes = _replacements(recording.news, names)
    for where, text in recording.logs.items():
        pod_name, _, container = where.partition("/")
        shown = Seen(same(text, changes))
        made[names.get(pod_name, pod_name), f"log {container}"] = Facet([shown])
    if recording.problem:
        made["case", "steps"] = Facet([Seen(same(recording.problem, changes))])
    return made


def _is_late(one: News, cut: float) -> bool:
    """Events come after what they tell of."""
    return cut < one.at <= cut + EVENTS_LATE


# -- which object is which ------------------------------------------------------------------------


def pod_keys(news: Sequence[News]) -> dict[str, str]:
    """What each pod is called here, by UID. A Job's pods have names by chance: they are counted by
    their index, those of one index in the order in which they were made."""
    found: dict[str, str] = {}
    numbers: dict[str, int] = {}
    pods = {one.object["metadata"]["uid"]: one.object for one in news if one.kind == "Pod"}
    by_age = sorted(pods.values(), key=_age)
    for one in by_age:
        meta = one["metadata"]
        owner = next((o for o in meta.get("ownerReferences") or () if o["kind"] == "Job"), None)
        base = str(meta["name"])
        if owner is not None:
            index = (meta.get("annotations") or {}).get(INDEX)
            base = owner["name"] if index is None else f"{owner['name']}-{index}"
        number = numbers[base] = numbers.get(base, 0) + 1
        found[meta["uid"]] = f"{base} ({number})" if owner or number > 1 else base
    return found


def _age(pod: Object) -> tuple[str, str]:
    meta = pod["metadata"]
    # Of those made within a second, as they ended: twins can be told apart by nothing else.
    return str(meta["creationTimestamp"]), str((pod.get("status") or {}).get("phase"))


def _events_of(news: Sequence[News], uid: str) -> Iterator[Object]:
    """Each as it was last told."""
    last = {one.name: one.object for one in news if one.kind == "Event" and one.type != "DELETED"}
    for one in last.values():
        by = (one.get("source") or {}).get("component") or one.get("reportingComponent")
        if one["involvedObject"].get("uid") == uid and by not in CONTROL_PLANE:
            yield one


# -- a pod ----------------------------------------------------------------------------------------


def pod(news: Sequence[News]) -> dict[str, Facet]:
    """Everything about one pod but its events and logs."""
    course: dict[str, list[tuple[float, str]]] = {}
    for one in news:
        for name, text in values(one).items():
            line = course.setdefault(name, [])
            if not line or line[-1][1] != text:
                line.append((one.at, text))
    made = {name: Facet(list(_seen(name, line))) for name, line in course.items()}
    there = [one.object for one in news if one.type != "DELETED"]
    for name, texts in at_end(there[-1] if there else news[-1].object).items():
        made[name] = Facet([Seen(text) for text in texts], ordered=False)
    return made


def _seen(name: str, line: Sequence[tuple[float, str]]) -> Iterator[Seen]:
    passes = name in PASSING or re.fullmatch(r"container \S+( (ready|started|last))?", name)
    for number, (since, text) in enumerate(line):
        if number + 1 == len(line):
            yield Seen(text)
            continue
        until, after = line[number + 1]
        # What a container waits for is told by somebody who knows.
        brief = until - since < BRIEF and not text.startswith("waiting")
        free = number == 0 or brief or _is_told_otherwise(text, after)
        yield Seen(text, bool(passes) and free)


def _is_told_otherwise(text: str, after: str) -> bool:
    """A container's state that may be missing, however long it was there: see RULES."""
    if text.startswith(BACK_OFF):
        return True
    return text.startswith("terminated") and after.startswith((BACK_OFF, "running"))


def values(news: News) -> dict[str, str]:
    """What one state of a pod says, by facet; nothing that has not been told yet."""
    one = news.object
    status, meta = one.get("status") or {}, one["metadata"]
    made = {"phase": _joined(status.get("phase"), status.get("reason"))}
    for condition in status.get("conditions") or ():
        text = _joined(condition["status"], condition.get("reason"))
        made[f"condition {condition['type']}"] = text
    for group in GROUPS:
        for container in status.get(group) or ():
            made |= _container(container)
    if "deletionTimestamp" in meta:
        made["deletion"] = f"grace {meta.get('deletionGracePeriodSeconds')}"
    if news.type == "DELETED":
        made["deletion"] = "gone"
    return made


def _container(one: Object) -> dict[str, str]:
    name, runs = one["name"], one.get("restartCount", 0)
    made = {f"container {name}": f"{state(one.get('state') or {})} #{runs}"}
    if last := one.get("lastState"):
        made[f"container {name} last"] = state(last)
    for flag in ("ready", "started"):
        if flag in one:
            made[f"container {name} {flag}"] = str(one[flag]).lower()
    return made


def state(one: Object) -> str:
    """A container's state in words."""
    if (waiting := one.get("waiting")) is not None:
        return f"waiting {waiting.get('reason', '')}".strip()
    if "running" in one:
        return "running"
    ended = one.get("terminated")
    if ended is None:
        return "nothing"
    words = [f"terminated {ended.get('reason', '')}", f"exit {ended.get('exitCode')}"]
    # What the container itself wrote; the runtime's own words differ by runtime.
    if ended.get("message") and ended.get("reason") in ("Completed", "Error"):
        words.append(f"says {ended['message']!r}")
    return " ".join(words)


def at_end(one: Object) -> dict[str, list[str]]:
    """What counts once all is over: what is told at all."""
    status = one.get("status") or {}
    made = {
        "quality": [str(status.get("qosClass"))],
        "generation": [
            _joined(one["metadata"].get("generation"), status.get("observedGeneration"))
        ],
        "status fields": sorted({*status} - {"reason", "message"}),
    }
    for group in GROUPS:
        for container in status.get(group) or ():
            found = {*made.get("container status fields", ()), *container}
            states = [container.get("state") or {}, container.get("lastState") or {}]
            if any(one.get("terminated", {}).get("signal") for one in states):
                found.add("signal")
            made["container status fields"] = sorted(found)
    return made


def told(events: Sequence[Object]) -> Iterator[Seen]:
    """Events in words: their reasons, and of whom in the pod; how often, where that is exact."""
    counts: dict[str, int] = {}
    for one in events:
        field = str(one["involvedObject"].get("fieldPath", ""))
        found = re.search(r"\{(.*)\}", field)
        words = f"{one['type']} {one['reason']}" + (f" of {found[1]}" if found else "")
        counts[words] = counts.get(words, 0) + count(one)
    for words, number in counts.items():
        exact = words.split()[1] in STARTS
        yield Seen(f"{words} ×{number}" if exact else words)


# -- a Job ----------------------------------------------------------------------------------------


def job(news: Sequence[News]) -> dict[str, Facet]:
    """Its conditions in their order, and its counts at the end."""
    added: list[str] = []
    for one in news:
        for condition in (one.object.get("status") or {}).get("conditions") or ():
            text = _joined(condition["type"], condition["status"], condition.get("reason"))
            if text not in added:
                added.append(text)
    status = news[-1].object.get("status") or {}
    counts = ("succeeded", "failed", "completedIndexes", "failedIndexes", "active", "terminating")
    end = ", ".join(f"{name} {status[name]}" for name in counts if status.get(name))
    return {"conditions": Facet([Seen(one) for one in added]), "counts": Facet([Seen(end)])}


def _joined(*words: object) -> str:
    return " ".join(str(one) for one in words if one not in (None, ""))


# -- logs -----------------------------------------------------------------------------------------


def _replacements(news: Sequence[News], names: Mapping[str, str]) -> Mapping[str, str]:
    """What differs in texts by the pod's place, and what stands for it."""
    found: dict[str, str] = {}
    for one in (one.object for one in news if one.kind == "Pod"):
        meta, status, spec = one["metadata"], one.get("status") or {}, one["spec"]
        found[meta["uid"]] = "UID"
        found[meta["namespace"]] = "NAMESPACE"
        if meta.get("generateName"):
            found[meta["name"]] = names.get(meta["name"], "POD")
        for key, stands in (("podIP", "POD-IP"), ("hostIP", "HOST-IP")):
            if status.get(key):
                found.setdefault(status[key], stands)
        if spec.get("nodeName"):
            found[spec["nodeName"]] = "NODE"
    return found


def same(text: str, replaced: Mapping[str, str]) -> str:
    """The text without what differs by place and time; longer words first, or a part would be
    taken."""
    for word in sorted(replaced, key=len, reverse=True):
        text = text.replace(word, replaced[word])
    return _TIMES.sub("TIME", _IDS.sub("ID", text))
