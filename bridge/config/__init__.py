"""What can be configured, where each value comes from, and what is wrong with it.

Order: flag > `PODBRIDGE_*` > file (./podbridge.yaml, then ~/.config/podbridge/config.yaml) >
default. A key below another is written with two underscores: `PODBRIDGE_PROVIDER__LISTEN`,
`PODBRIDGE_BACKENDS__0__MAX_PODS`.
"""

from __future__ import annotations

from bridge.config.cluster import Cluster, NodeConfig, default_nodes
from bridge.config.loading import CONFIG_VARIABLE, check_text, find, load, set_value
from bridge.config.models import (
    API_VERSION,
    BackendConfig,
    Config,
    OptionsModel,
    Provider,
    Tls,
    schema,
)
from bridge.config.values import SecretRef, duration, money, nearest

__all__ = [
    "API_VERSION",
    "CONFIG_VARIABLE",
    "BackendConfig",
    "Cluster",
    "Config",
    "NodeConfig",
    "OptionsModel",
    "Provider",
    "SecretRef",
    "Tls",
    "check_text",
    "default_nodes",
    "duration",
    "find",
    "load",
    "money",
    "nearest",
    "schema",
    "set_value",
]
