"""What the API server refuses in a Job or CronJob (v1.36: pkg/apis/batch/validation)."""

from __future__ import annotations

import re
from typing import Any

from bridge.pods import Manifest
from bridge.pods.validation import names
from bridge.pods.validation.cron import schedule_problem, time_zone_problem
from bridge.pods.validation.report import Report

_NOT_NEGATIVE = (
    *("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit"),
    *("ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"),
)
_LARGE = 100_000
"""Completions above which the limits by index are themselves limited (validation.go)."""
_LARGE_LIMIT = 10_000
_MAX_RULES = 20
_MAX_EXIT_CODES = 255
_MAX_INDEXES_LENGTH = 64 * 1024
_INTERVAL = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def check_job_spec(spec: Manifest, path: str, report: Report, *, in_cron_job: bool) -> None:
    """Check a clean JobSpec apart from its pod template's own rules."""
    for name in _NOT_NEGATIVE:
        if spec.get(name, 0) < 0:
            report.add(f"{path}.{name}", f"found {spec[name]}; allowed: 0 or more")
    report.add(f"{path}.completionMode", _mode_problem(spec))
    if spec.get("completionMode") == "Indexed":
        _indexed(spec, path, report)
    else:
        for name in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
            if name in spec:
                words = "only with completionMode: Indexed"
                report.add(f"{path}.{name}", words, beside=f"{path}.completionMode")
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        report.add(f"{path}.backoffLimitPerIndex", "missing; required beside maxFailedIndexes")
    if "managedBy" in spec:
        report.add(f"{path}.managedBy", _managed_by_problem(spec["managedBy"]))
    _selector(spec, path, report, in_cron_job=in_cron_job)
    _replacement(spec, path, report)
    _failure_policy(spec, f"{path}.podFailurePolicy.rules", report)
    _template(spec, f"{path}.template.spec", report)


def _mode_problem(spec: Manifest) -> str | None:
    mode = spec.get("completionMode", "NonIndexed")
    if mode in ("NonIndexed", "Indexed"):
        return None
    return f"found {names.shown(mode)}; allowed: NonIndexed, Indexed"


def _managed_by_problem(value: str) -> str | None:
    if len(value) > 63:
        return f"found {len(value)} characters; allowed: at most 63"
    if "/" not in value:
        return f'found {names.shown(value)}; allowed: a DNS domain, "/" and a path'
    return names.dns_subdomain(value.partition("/")[0])


def _template(spec: Manifest, path: str, report: Report) -> None:
    policy = spec["template"].get("spec", {}).get("restartPolicy") or "Always"
    if "spec" not in spec["template"]:
        report.add(path, "missing; this field is required")
    if policy not in ("OnFailure", "Never"):
        found = f"found {names.shown(policy)}" + (" (the default)" if policy == "Always" else "")
        report.add(f"{path}.restartPolicy", f"{found}; allowed in a Job: OnFailure, Never")
    elif "podFailurePolicy" in spec and policy != "Never":
        found = names.shown(policy)
        report.add(f"{path}.restartPolicy", f"found {found}; allowed with podFailurePolicy: Never")


def _selector(spec: Manifest, path: str, report: Report, *, in_cron_job: bool) -> None:
    if in_cron_job and spec.get("manualSelector"):
        report.add(f"{path}.manualSelector", "found true; allowed in a CronJob: false")
    if "selector" not in spec:
        if spec.get("manualSelector") and not in_cron_job:
            report.add(f"{path}.selector", "missing; required beside manualSelector: true")
        return
    if in_cron_job or not spec.get("manualSelector"):
        report.add(f"{path}.selector", "is generated; allowed only beside manualSelector: true")
        return
    labels = spec["template"].get("metadata", {}).get("labels", {})
    for key, value in spec["selector"].get("matchLabels", {}).items():
        if labels.get(key) != value:
            where = f"{path}.template.metadata.labels"
            report.add(where, f'does not carry the selector\'s label "{key}"')


def _replacement(spec: Manifest, path: str, report: Report) -> None:
    if "podReplacementPolicy" not in spec:
        return
    allowed = ("Failed",) if "podFailurePolicy" in spec else ("TerminatingOrFailed", "Failed")
    policy = spec["podReplacementPolicy"]
    if policy not in allowed:
        found = names.shown(policy)
        report.add(f"{path}.podReplacementPolicy", f"found {found}; allowed: {', '.join(allowed)}")


def _indexed(spec: Manifest, path: str, report: Report) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism", 1)
    failed = spec.get("maxFailedIndexes")
    if completions is None:
        report.add(f"{path}.completions", "missing; required with completionMode: Indexed")
        return
    if parallelism > _LARGE:
        report.add(f"{path}.parallelism", f"found {parallelism}; allowed: at most {_LARGE}")
    if failed is not None and failed > min(completions, _LARGE):
        allowed = f"at most {min(completions, _LARGE)}"
        report.add(f"{path}.maxFailedIndexes", f"found {failed}; allowed: {allowed}")
    if completions > _LARGE and "backoffLimitPerIndex" in spec:
        why = f"at most {_LARGE_LIMIT} where completions is above {_LARGE}"
        if failed is None:
            report.add(f"{path}.maxFailedIndexes", f"missing; allowed: {why}")
        for name in ("parallelism", "maxFailedIndexes"):
            if spec.get(name, 0) > _LARGE_LIMIT:
                report.add(f"{path}.{name}", f"found {spec[name]}; allowed: {why}")
    if "successPolicy" in spec:
        _success_policy(spec["successPolicy"], completions, f"{path}.successPolicy.rules", report)


# --- podFailurePolicy --------------------------------------------------------------------------


def _failure_policy(spec: Manifest, path: str, report: Report) -> None:
    rules = spec.get("podFailurePolicy", {}).get("rules", ())
    if len(rules) > _MAX_RULES:
        report.add(path, f"found {len(rules)} rules; allowed: at most {_MAX_RULES}")
    pod = spec["template"].get("spec", {})
    containers = {c["name"] for k in ("containers", "initContainers") for c in pod.get(k, ())}
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        action = rule["action"]
        if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            report.add(f"{where}.action", "FailIndex needs backoffLimitPerIndex")
        allowed = names.one_of("FailJob", "FailIndex", "Ignore", "Count")
        report.add(f"{where}.action", allowed(action))
        tests = {name: value for name, value in rule.items() if value != []}
        report.exactly_one(tests, where, ("onExitCodes", "onPodConditions"))
        if "onExitCodes" in rule:
            _exit_codes(rule["onExitCodes"], containers, f"{where}.onExitCodes", report)
        _conditions(rule.get("onPodConditions", ()), f"{where}.onPodConditions", report)


def _exit_codes(codes: Manifest, containers: set[str], path: str, report: Report) -> None:
    report.add(f"{path}.operator", names.one_of("In", "NotIn")(codes["operator"]))
    name = codes.get("containerName")
    if name is not None and name not in containers:
        known = ", ".join(sorted(containers))
        report.add(f"{path}.containerName", f"found {names.shown(name)}; allowed: {known}")
    values = codes["values"]
    if not 1 <= len(values) <= _MAX_EXIT_CODES:
        allowed = f"1 to {_MAX_EXIT_CODES}"
        report.add(f"{path}.values", f"found {len(values)} values; allowed: {allowed}")
    if 0 in values and codes["operator"] == "In":
        report.add(f"{path}.values[{values.index(0)}]", "found 0; a success is no failure")
    if len(set(values)) != len(values):
        report.add(f"{path}.values", "found a value twice; allowed: each once")
    if sorted(values) != values:
        report.add(f"{path}.values", "found values out of order; allowed: in rising order")


def _conditions(patterns: Any, path: str, report: Report) -> None:
    if len(patterns) > _MAX_RULES:
        report.add(path, f"found {len(patterns)} patterns; allowed: at most {_MAX_RULES}")
    for index, pattern in enumerate(patterns):
        report.add(f"{path}[{index}].type", names.qualified_name(pattern["type"]))
        allowed = names.one_of("", "True", "False", "Unknown")
        report.add(f"{path}[{index}].status", allowed(pattern.get("status", "")))


# --- successPolicy -----------------------------------------------------------------------------


def _success_policy(policy: Manifest, completions: int, path: str, report: Report) -> None:
    rules = policy["rules"]
    if not 1 <= len(rules) <= _MAX_RULES:
        report.add(path, f"found {len(rules)} rules; allowed: 1 to {_MAX_RULES}")
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            report.add(where, "found none; allowed: succeededCount, succeededIndexes, or both")
        most = completions
        if indexes is not None:
            total, problem = indexes_total(indexes, completions)
            report.add(f"{where}.succeededIndexes", problem)
            most = total if problem is None else most
        if count is not None and not 0 <= count <= most:
            report.add(f"{where}.succeededCount", f"found {count}; allowed: 0 to {most}")


def indexes_total(text: str, completions: int) -> tuple[int, str | None]:
    """How many indexes "0,2-5" names, and what is wrong with it (None where all is well)."""
    if len(text) > _MAX_INDEXES_LENGTH:
        return 0, f"found {len(text)} characters; allowed: at most {_MAX_INDEXES_LENGTH}"
    total, last = 0, -1
    for part in text.split(",") if text else ():
        match = _INTERVAL.fullmatch(part)
        if match is None:
            return 0, f'found {names.shown(part)}; allowed: indexes and intervals ("0,2-5")'
        first = int(match[1])
        end = int(match[2]) if match[2] else first
        if first <= last or (match[2] and end <= first):
            return 0, f"found {names.shown(part)} out of order; allowed: in rising order"
        if end >= completions:
            return 0, f"found {end}; allowed: below completions, {completions}"
        total, last = total + end - first + 1, end
    return total, None


# --- whole objects -----------------------------------------------------------------------------


def check_job_name(job: Manifest, report: Report) -> None:
    """An Indexed Job's pods are named by it and their index, and that must be a host's name."""
    spec, name = job.get("spec", {}), job.get("metadata", {}).get("name", "")
    completions = spec.get("completions", 0)
    if spec.get("completionMode") == "Indexed" and completions > 0 and name:
        problem = names.dns_label(f"{name}-{completions - 1}")
        if problem:
            report.add("metadata.name", f"no host name can be made of it and an index: {problem}")


def check_cron_job(cron: Manifest, report: Report) -> None:
    """Check a clean CronJob's own fields."""
    spec = cron["spec"]
    report.add("spec.schedule", schedule_problem(spec["schedule"]))
    if "timeZone" in spec:
        report.add("spec.timeZone", time_zone_problem(spec["timeZone"]))
    allowed = names.one_of("", "Allow", "Forbid", "Replace")
    report.add("spec.concurrencyPolicy", allowed(spec.get("concurrencyPolicy", "")))
    for name in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        if spec.get(name, 0) < 0:
            report.add(f"spec.{name}", f"found {spec[name]}; allowed: 0 or more")
    length = len(cron.get("metadata", {}).get("name", ""))
    if length > 52:
        why = "its Jobs' names are longer by 11"
        report.add("metadata.name", f"found {length} characters; allowed: at most 52 ({why})")
