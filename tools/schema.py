"""Write the trimmed schema that `bridge.pods.schema` checks manifests against.

Usage: python tools/schema.py PATH/TO/kubernetes/api/openapi-spec/swagger.json

Keeps what is reachable from the kinds that run, and of that only what says a shape. The words of
the documentation are nine tenths of the original file and would be read at every start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOTS = ("core.v1.Pod", "batch.v1.Job", "batch.v1.CronJob", "core.v1.ConfigMap", "core.v1.Secret")
KEPT = ("type", "format", "items", "additionalProperties", "required", "properties", "$ref")
PREFIXES = ("io.k8s.apimachinery.pkg.apis.", "io.k8s.apimachinery.pkg.", "io.k8s.api.")
TARGET = Path(__file__).parent.parent / "bridge" / "pods" / "schema" / "v1_36.json"


def short(name: str) -> str:
    """`io.k8s.api.core.v1.Pod` as `core.v1.Pod`."""
    name = name.rsplit("/", 1)[-1]
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def trim(node: dict[str, Any]) -> dict[str, Any]:
    """One schema node without words, its references shortened."""
    out: dict[str, Any] = {}
    for key in KEPT:
        if key not in node:
            continue
        value = node[key]
        if key == "properties":
            out[key] = {name: trim(child) for name, child in sorted(value.items())}
        elif key in ("items", "additionalProperties"):
            out[key] = trim(value)
        else:
            out[key] = short(value) if key == "$ref" else value
    return out


def references(node: Any) -> set[str]:
    """The names that a trimmed node refers to."""
    if not isinstance(node, dict):
        return set()
    found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return found.union(*(references(child) for child in node.values()))


def build(swagger: dict[str, Any]) -> dict[str, Any]:
    """The file's content: Kubernetes' version and the definitions reachable from `ROOTS`."""
    every = {short(name): node for name, node in swagger["definitions"].items()}
    kept: dict[str, Any] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = trim(every[name])
            waiting.extend(references(kept[name]))
    return {"definitions": dict(sorted(kept.items()))}


if __name__ == "__main__":
    content = build(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    TARGET.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(content['definitions'])} definitions, {TARGET.stat().st_size} bytes")
