"""Judges a provider by the contract, over the wire alone.

`checks()` is the register; `judge` runs some of it against an address. A check gets a `Kit`: a
node of its own at the provider, pods on it, and what the provider says of them. It knows nothing of
how the provider is made, and imports nothing of ours but the contract itself.
"""

from bridge.conformance.model import Check, Outcome, Result, Settings
from bridge.conformance.register import checks
from bridge.conformance.runner import Report, judge

__all__ = ["Check", "Outcome", "Report", "Result", "Settings", "checks", "judge"]
