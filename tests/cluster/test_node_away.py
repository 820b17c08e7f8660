"""What befalls pods while the node is away."""

from __future__ import annotations

from pathlib import Path

import node_kit
from control_plane_kit import ControlPlane, Namespace
from node_kit import container


def test_a_pod_deleted_while_the_node_was_away_has_its_hook(
    control_plane: ControlPlane, namespace: Namespace, tmp_path: Path
) -> None:
    with node_kit.place(control_plane, tmp_path / "place") as place:
        up = place.up()
        hook = {"exec": {"command": ["/bin/sh", "-c", f"echo hook >> {tmp_path}/trace"]}}
        main = container("exec sleep 1000", lifecycle={"preStop": hook})
        place.pod(namespace, "p", containers=[main], terminationGracePeriodSeconds=20)
        place.running(namespace, "p")
        up.stop()
        namespace.api.delete(namespace.path("pods", "p"))
        place.up()
        place.gone(namespace, "p")
        assert (tmp_path / "trace").read_text() == "hook\n"
