"""What is known of one pod, and of the provider's present life."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.agent.request import Version
from bridge.pods import Manifest
from bridge.pods.resize import Resize
from bridge.rpc.v1 import pod_pb2


@dataclass(slots=True)
class Entry:
    """One pod. `pod` None: the cluster no longer has it; `facts` None: the provider told none."""

    who: pod_pb2.PodIdentity
    pod: Manifest | None = None
    facts: pod_pb2.PodFacts | None = None
    revision: int = 0
    told: pod_pb2.PodFacts | None = None
    """The facts that the pod's status already says."""
    acked: int = 0
    accepted: str = ""
    """The epoch in which the provider took the pod on; another epoch has to be asked again."""
    sent: Version | None = None
    """What of the pod the provider was told last; None: it may have something older."""
    incomplete: bool = False
    """Something that the pod refers to was missing when the provider was last asked."""
    delete_sent: tuple[str, float] | None = None
    """(epoch, grace) of the newest DeletePod."""
    orphan: bool = False
    stale: bool = False
    """What the pod refers to has changed since the provider was last told."""
    started: float | None = None
    """status.startTime before the first patch carried it."""
    gates: Manifest | None = None
    """The conditions of others that the pod's status was computed with."""
    resize: Resize | None = None
    """What is left of the newest resize."""
    shown: tuple[Resize | None, Version | None] = (None, None)
    """What of resizes and versions the status was computed with."""
    problem: str = ""
    """The last refusal that was told as an event: each is told once."""

    @property
    def runs(self) -> bool:
        """Whether the provider has it, and it is not over."""
        return self.facts is not None and self.facts.stage == pod_pb2.POD_STAGE_ACTIVE

    @property
    def is_seen_running(self) -> bool:
        """Whether a container of it runs."""
        return self.facts is not None and any(
            one.WhichOneof("state") == "running" for one in self.facts.containers
        )

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs or ever will."""
        return self.facts is not None and self.facts.stage in (
            pod_pb2.POD_STAGE_ENDED,
            pod_pb2.POD_STAGE_GONE,
        )


@dataclass(slots=True)
class Epoch:
    """What is known of the provider's present life."""

    name: str = ""
    revision: int = 0
    pending: set[str] = field(default_factory=set)
    """Backends whose sync marks have not come yet."""
    synced: bool = False
    since: float = 0.0
    """When its snapshot began."""
