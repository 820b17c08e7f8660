"""What can be chosen for this backend."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.workload import HelperUse


class Options(BaseModel):
    """Options of the `engine` backend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = ""
    """Where the engine listens: `unix:///run/podman/podman.sock`, `tcp://10.0.0.1:2376`. Default:
    DOCKER_HOST, then the usual sockets of Docker and Podman. Over TCP, DOCKER_TLS_VERIFY and
    DOCKER_CERT_PATH mean what they mean to `docker`."""

    owner: str = Field(default="podbridge", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    """Whose containers these are, as a label. Providers with the same one see each other's pods;
    give each its own where several share an engine and must not. Default: podbridge."""

    pause_image: str = ""
    """The image of the container that holds a pod's namespaces. Default: one of our own, a few
    hundred bytes, which is put into the engine without any registry. Another one must run /pause
    (as registry.k8s.io/pause does); with it, the files of a volume cannot be replaced at once."""

    network: str = ""
    """The engine's network that pods join. Default: the engine's own default network."""

    parallel: int = Field(default=8, ge=1, le=64)
    """How many pods are made, and containers started, at a time. Default 8: engines serialize much
    of it, so that more only makes each one slower."""

    timeout: float = Field(default=120.0, gt=0)
    """Seconds that the engine may take for one answer. Default 120: a busy machine's slowest start
    of a container stays well below it."""

    helper: HelperUse = HelperUse.NEVER
    """`always`: pods run as on a cloud that has nothing but groups of containers, with the helper
    around each container (docs/helper.md). `auto`: the same, with the helper only in pods that need
    it. A pod's annotation podbridge.io/helper goes before both. Slower to start, and of use to try
    what a pod will be like there. Default: never, for the engine does all of it itself."""

    helper_images: Literal["engine", "registry"] = "engine"
    """Who says what an image runs, where a pod names no command: the engine, which has the image,
    or the image's registry, as on a cloud. Default: engine."""

    helper_state: str = ""
    """Where the secret is kept by which pods' helpers are known after a restart. Default:
    $XDG_STATE_HOME/podbridge/helper, or ~/.local/state/podbridge/helper."""

    helper_listen: str = "0.0.0.0"  # noqa: S104 - whoever has no certificate gets nothing
    """The address at which this machine waits for the helpers, which show certificates that only
    this backend gives out. Default: 0.0.0.0, since the engine's own bridge may not be there yet."""

    helper_port: int = Field(default=0, ge=0, le=65535)
    """The port for it. Default: any that is free, and after a restart the same one."""

    helper_address: str = ""
    """The host that the helpers dial. Default: the gateway of the pods' network, which is this
    machine where the engine is local."""
