"""What the API server's validation refuses beyond an object's shape (v1.36)."""

from __future__ import annotations

import base64
import binascii
import json

from bridge.errors import Violation
from bridge.pods import Manifest
from bridge.pods.schema import KINDS, check, examine, visit, without_nulls
from bridge.pods.validation import names
from bridge.pods.validation.batch import check_cron_job, check_job_name, check_job_spec
from bridge.pods.validation.pod import check_pod_spec
from bridge.pods.validation.report import Report
from bridge.pods.validation.rules import pod_rules

__all__ = ["validate"]

_TEMPLATES = {"Pod": "spec", "Job": "spec.template.spec"} | {
    "CronJob": "spec.jobTemplate.spec.template.spec"
}
_MAX_DATA = 1 << 20
"""Bytes of a ConfigMap or Secret in all (MaxSecretSize): etcd refuses more than about 1.5 MiB."""
_MAX_ANNOTATIONS = 256 * 1024
_REQUIRED_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_JSON_KEYS = (".dockercfg", ".dockerconfigjson")


def validate(obj: Manifest) -> list[Violation]:
    """Everything that is wrong with an object, defaulted or not: shape first, then rules.

    What is misshapen is left out for the rules. Where that leaves an object without something that
    it must have, only the rules for metadata and for single fields can be looked at. Never raises;
    a kind that is none of `schema.KINDS` is a violation. Nothing that a Secret holds is ever shown.
    """
    kind = obj.get("kind") if isinstance(obj, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return [Violation("kind", f"allowed: {', '.join(KINDS)}")]
    wrong, told = examine(obj, kind)
    clean = without_nulls(obj, kind, frozenset(one.field for one in wrong))
    report = Report(told)
    _metadata(clean.get("metadata", {}), "metadata", report)
    if wrong and check(clean, kind):
        _fields(clean, kind, report)
    elif kind == "ConfigMap":
        _config_map(clean, report)
    elif kind == "Secret":
        _secret(clean, report)
    else:
        _workload(clean, kind, report)
    return [*wrong, *report.violations]


def _workload(obj: Manifest, kind: str, report: Report) -> None:
    if "spec" not in obj:
        report.add("spec", "missing; this field is required")
        return
    if kind == "CronJob":
        check_cron_job(obj, report)
        template = obj["spec"]["jobTemplate"]
        _labels_and_annotations(template.get("metadata", {}), "spec.jobTemplate.metadata", report)
        if "spec" not in template:
            report.add("spec.jobTemplate.spec", "missing; this field is required")
            return
        _job(template["spec"], "spec.jobTemplate.spec", report, in_cron_job=True)
    elif kind == "Job":
        check_job_name(obj, report)
        _job(obj["spec"], "spec", report, in_cron_job=False)
    else:
        check_pod_spec(obj["spec"], "spec", report, whole_pod=True)
    _fields(obj, kind, report)


def _job(spec: Manifest, path: str, report: Report, *, in_cron_job: bool) -> None:
    check_job_spec(spec, path, report, in_cron_job=in_cron_job)
    template = spec["template"]
    _labels_and_annotations(template.get("metadata", {}), f"{path}.template.metadata", report)
    if "spec" in template:
        check_pod_spec(template["spec"], f"{path}.template.spec", report, whole_pod=False)


def _fields(obj: Manifest, kind: str, report: Report) -> None:
    if kind not in _TEMPLATES:
        return
    prefix = _TEMPLATES[kind] + "."
    rules = pod_rules()
    for general, path, value in visit(obj, kind):
        if general.startswith(prefix):
            rule = rules.get(general[len(prefix) :])
            if rule is not None:
                report.add(path, rule(value))


def _metadata(metadata: Manifest, path: str, report: Report) -> None:
    name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
    if name:
        report.add(f"{path}.name", names.dns_subdomain(name))
    elif not prefix:
        report.add(f"{path}.name", "missing; name or generateName is required")
    if prefix:
        # What is generated comes after it, so it may end in what a name may not.
        report.add(f"{path}.generateName", names.dns_subdomain(f"{prefix}x"))
    if metadata.get("namespace"):
        report.add(f"{path}.namespace", names.dns_label(metadata["namespace"]))
    _labels_and_annotations(metadata, path, report)


def _labels_and_annotations(metadata: Manifest, path: str, report: Report) -> None:
    for key, value in metadata.get("labels", {}).items():
        report.add(f"{path}.labels[{key}]", names.qualified_name(key))
        report.add(f"{path}.labels[{key}]", names.label_value(value))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        report.add(f"{path}.annotations[{key}]", names.annotation_key(key))
    size = sum(_size(key) + _size(value) for key, value in annotations.items())
    if size > _MAX_ANNOTATIONS:
        found = f"found {size} bytes"
        report.add(f"{path}.annotations", f"{found}; allowed: at most {_MAX_ANNOTATIONS}")


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:  # the shape check has refused it already
        return b""


def _config_map(obj: Manifest, report: Report) -> None:
    data, binary = obj.get("data", {}), obj.get("binaryData", {})
    for field, content in (("data", data), ("binaryData", binary)):
        for key in content:
            report.add(f"{field}[{key}]", names.data_key(key))
            if field == "data" and key in binary:
                report.add(f"data[{key}]", "the same key is in binaryData")
    size = sum(map(_size, data.values())) + sum(len(_decoded(text)) for text in binary.values())
    if size > _MAX_DATA:
        report.add("data", f"found {size} bytes; allowed: at most {_MAX_DATA} in all")


def _secret(obj: Manifest, report: Report) -> None:
    content = {key: _decoded(text) for key, text in obj.get("data", {}).items()}
    for field in ("data", "stringData"):
        for key in obj.get(field, {}):
            report.add(f"{field}[{key}]", names.data_key(key))
    content |= {
        key: text.encode(errors="replace") for key, text in obj.get("stringData", {}).items()
    }
    size = sum(map(len, content.values()))
    if size > _MAX_DATA:
        report.add("data", f"found {size} bytes; allowed: at most {_MAX_DATA} in all")
    kind = obj.get("type") or "Opaque"
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in content:
            words = f"missing; required in a Secret of type {kind}"
            report.add(f"data[{key}]", words, beside=f"stringData[{key}]")
        elif key in _JSON_KEYS and not _is_json_object(content[key]):
            report.add(f"data[{key}]", "is no JSON object")
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(content):
        words = "found neither username nor password; allowed: one of them, or both"
        report.add("data", words, beside="stringData")


def _is_json_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False
