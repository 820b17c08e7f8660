"""What can be chosen for every backend whose cloud runs groups of containers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from bridge.config.values import Duration
from bridge.workload import HelperUse


class Model(BaseModel):
    """Options, or a part of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tunnel(Model):
    """Where the helpers in pods find this provider (docs/helper.md, "The tunnel")."""

    listen: str = "0.0.0.0"  # noqa: S104 - whoever has no certificate gets nothing
    """The address at which this machine waits for helpers. Default: 0.0.0.0."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port. Default: any that is free, and after a restart the same one; behind a load balancer
    or a firewall say which."""
    address: str
    """The host that helpers dial, at that port: this provider's, or that of a load balancer that
    passes TCP through."""


class Images(Model):
    """Names of images, and who is asked about them."""

    rewrite: dict[str, str] = Field(default_factory=dict)
    """Other beginnings for images' names, the longest that fits first: `{"docker.io/":
    "registry.example/docker-hub/"}` for a pull-through cache. Names are written out before:
    `busybox` is `docker.io/library/busybox`. Default: none."""
    resolve: bool = True
    """Whether registries are asked for digests, architectures and commands before a launch. Default
    true: all pods of one template then run the same image, and a wrong one costs no launch."""


class Mapped(Model):
    """What pods of a namespace, or of one of its service accounts, are given. Nothing in a pod can
    choose it."""

    namespace: str = Field(min_length=1, max_length=63)
    """The pods' namespace."""
    service_account: str = ""
    """The pods' service account. Default: every one of that namespace that no other entry names."""


class Claimed(Model):
    """What stands behind a PersistentVolumeClaim."""

    namespace: str = Field(min_length=1, max_length=63)
    """The claim's namespace."""
    claim: str = Field(min_length=1, max_length=253)
    """The claim's name."""


class GroupOptions(Model):
    """Options of every such backend; each has its own besides."""

    images: Images = Images()
    """Names of images."""
    helper: HelperUse = HelperUse.AUTO
    """Whether the helper is in the containers (docs/helper.md). `auto`: where a pod needs it. A
    pod's annotation podbridge.io/helper goes before. Default: auto."""
    helper_image: str = ""
    """The image that has the helper's program. Default: none: pods that need it are refused."""
    helper_program: str = Field(default="/helper", pattern=r"^/.+$")
    """The program's path in that image. Default: /helper."""
    helper_state: str = ""
    """Where the secret is kept by which pods' helpers are known after a restart. Default:
    $XDG_STATE_HOME/podbridge/helper, or ~/.local/state/podbridge/helper."""
    tunnel: Tunnel | None = None
    """How helpers reach this provider. Default: not at all: attach, port-forward and usage are
    then refused, exec too where the backend has no way of its own, and how each container is comes
    with the end of the pod."""
    start_deadline: Duration = 900.0
    """Seconds in which a pod's containers have to run; then they are ended and others launched.
    Default 900: large images take minutes, and some launches never start."""
    discover: Duration = 300.0
    """Seconds between looks for pods that nobody here knows of. Default 300."""
