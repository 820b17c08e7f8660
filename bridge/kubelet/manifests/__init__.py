"""What `podbridge install` prints: everything that two replicas need to keep nodes from inside a
cluster. Pure: no file, no network, no clock.

Each replica is one `podbridge up`, with its provider in the same process. The node's Lease is the
lock between them, so that a second one costs little and takes over within 25 seconds. They are a
Deployment like any other, and must never run on the nodes that they keep themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from bridge.kubelet.manifests.burst import burst
from bridge.kubelet.manifests.parts import Names, Part
from bridge.kubelet.manifests.rights import rights
from bridge.kubelet.manifests.settings import InCluster, in_cluster
from bridge.kubelet.manifests.workload import namespace, workload

__all__ = ["InCluster", "Names", "Part", "burst", "in_cluster", "install", "render"]


def install(names: Names, settings: InCluster, image: str, version: str) -> list[Part]:
    """All objects, in the order in which they can be applied. `image` runs `podbridge`; `version`
    is what it is labelled with."""
    parts = [
        *namespace(names),
        *rights(names, settings.nodes),
        *workload(names, settings, image),
    ]
    for one in parts:
        labels = {"app.kubernetes.io/name": "podbridge", "app.kubernetes.io/version": version}
        one.object["metadata"]["labels"] = labels | one.object["metadata"].get("labels", {})
    return parts


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        """Never `&id001`: people read this."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def render(parts: Iterable[Part]) -> str:
    """Documents of YAML, each below the words that say what it is for."""
    out = []
    for one in parts:
        words = "".join(f"# {line}\n" for line in one.words.splitlines())
        text = yaml.dump(
            one.object, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
        )
        out.append(f"---\n{words}{text}")
    return "".join(out)
