"""`podbridge install`: manifests that keep nodes from inside a cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

import bridge
from bridge.errors import Invalid, Violation

if TYPE_CHECKING:
    from bridge.kubelet.manifests import InCluster, Names

_EXAMPLES = """
\b
Examples:
  podbridge install --image registry.example.com/podbridge:1 | kubectl apply -f -
  podbridge install --burst > podbridge.yaml
  kubectl label namespace ci podbridge.io/burst=enabled

\b
Nodes and backends are those of the configuration. What tells how this machine reaches a cluster is
left out, and told. Secrets never go along: env:NAME becomes the key NAME of a Secret "podbridge",
which is yours to make; file:PATH is refused.
"""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"v?1\.(\d{1,3})(\.\d+)?([-+].*)?")
_LONGEST = 50
"""Characters of a namespace's name: with `podbridge-` before it, it is a name too."""


@click.command(epilog=_EXAMPLES)
@click.option(
    "-n", "--namespace", default="podbridge", show_default=True, help="Where the replicas run."
)
@click.option(
    "--image",
    metavar="IMAGE",
    help=f"An image with this podbridge. Default: podbridge:{bridge.__version__}, which no registry"
    " has: docs/install.md says how to build it.",
)
@click.option("--on", metavar="BACKENDS", help="Only these backends (names or types).")
@click.option(
    "--burst",
    is_flag=True,
    help="And a policy: pods of namespaces labelled podbridge.io/burst=enabled may run on the node"
    " and prefer real ones.",
)
@click.option(
    "--kubernetes-version",
    default="1.36",
    show_default=True,
    metavar="1.N",
    help="Of the API server, for --burst: before 1.36 the policy is beta.",
)
@click.pass_obj
def command(
    obj: dict[str, str | None],
    *,
    namespace: str,
    image: str | None,
    on: str | None,
    burst: bool,
    kubernetes_version: str,
) -> None:
    """Print manifests for kubectl apply -f -: two replicas that keep the configured nodes."""
    from bridge.cli.wiring import choose_backends, load_config
    from bridge.kubelet import manifests
    from bridge.provider.registry import options_model

    names = manifests.Names(_checked_namespace(namespace))
    minor = _minor(kubernetes_version)
    chosen = _checked_image(image or f"podbridge:{bridge.__version__}")
    config = load_config(obj["config"])
    settings = manifests.in_cluster(config, choose_backends(config, on), options_model)
    parts = manifests.install(names, settings, chosen, _label(bridge.__version__))
    if burst:
        parts += manifests.burst(minor)
    print(manifests.render(parts), end="")
    _tell(names, settings)


def _tell(names: Names, settings: InCluster) -> None:
    """What nobody may miss, beside the output."""
    from bridge.cli.output import hint

    if settings.untainted:
        hint("no_taint: pods that need a real machine, and DaemonSets, will land on the node too")
    if settings.left_out:
        hint(
            f"left out, because the replicas use their service account and their own addresses:"
            f" {', '.join(settings.left_out)}"
        )
    if settings.variables:
        hint(
            f"the replicas start once there is a Secret with {', '.join(settings.variables)}:"
            f" kubectl -n {names.namespace} create secret generic podbridge --from-env-file=FILE"
        )
    for one in settings.hostless:
        hint(
            f"{one}: a replica has no container engine of its own: set host to one that it reaches"
        )
    for one in settings.local:
        hint(
            f"{one}: pods run inside the replica that keeps the node, and end with it: for trying"
            " it out only"
        )


def _checked_namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name) or len(name) > _LONGEST:
        words = f'found "{name[:80]}"; allowed: at most {_LONGEST} of a-z, 0-9 and -'
        words += ", with a letter or digit at both ends"
        raise Invalid(violations=[Violation("--namespace", words)])
    return name


def _checked_image(image: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", image):
        words = f'found "{image[:80]}"; allowed: an image ("registry.example.com/podbridge:1")'
        raise Invalid(violations=[Violation("--image", words)])
    return image


def _minor(version: str) -> int:
    found = _VERSION.fullmatch(version)
    if found is None:
        words = f'found "{version[:40]}"; allowed: 1.N, as in "1.36"'
        raise Invalid(violations=[Violation("--kubernetes-version", words)])
    return int(found[1])


def _label(version: str) -> str:
    """A version as a label's value."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", version)[:63].strip("-_.")
