"""Azure Container Instances on this machine, for the Azure SDK that is given an endpoint.

Requests are held against the models of azure-mgmt-containerinstance (2023-05-01). Containers really
run, as processes or in a container engine. `docs/simulators.md` says what is simulated and what is
not.
"""

from __future__ import annotations

from adapters.simulators.azure.server import Simulator
from adapters.simulators.azure.settings import Fault, Settings, Timing
from adapters.simulators.common.settings import Bucket

__all__ = ["Bucket", "Fault", "Settings", "Simulator", "Timing"]
