"""What an image's registry says of it, without pulling it.

`RegistryClient` asks; `parse` and `logins` are the names of images and which login is for which.
"""

from __future__ import annotations

from bridge.registry.client import RegistryClient
from bridge.registry.credentials import logins
from bridge.registry.documents import ImageConfig, Platform
from bridge.registry.reference import Reference, parse

__all__ = ["ImageConfig", "Platform", "Reference", "RegistryClient", "logins", "parse"]
