"""Subnets and the addresses in them, as far as a Fargate task needs them.

Addresses are loopback ones (127/8), one for each task: what listens on all addresses of this host
is really reachable at the task's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.names import hex_id, uuid_id

FREE = 251
"""Addresses that a /24 has for tasks: AWS keeps five."""
_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_GROUP = re.compile(r"sg-[0-9a-f]{8,17}")
MAX_SUBNETS = 16
MAX_GROUPS = 5


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)


@dataclass(slots=True)
class Interface:
    """A task's network interface. `address` is empty until there is one."""

    subnet: str
    zone: str
    address: str = ""
    status: str = "PRECREATED"
    """PRECREATED, ATTACHED, DELETED."""
    id: str = field(default_factory=uuid_id)
    eni: str = field(default_factory=lambda: f"eni-{hex_id(16)}0")

    def attachment(self, type_: str) -> Json:
        """As DescribeTasks and events have it."""
        details = [{"name": "subnetId", "value": self.subnet}]
        if self.address:
            details += [
                {"name": "networkInterfaceId", "value": self.eni},
                {"name": "macAddress", "value": _mac(self.eni)},
                {"name": "privateDnsName", "value": _dns(self.address)},
                {"name": "privateIPv4Address", "value": self.address},
            ]
        return {"id": self.id, "type": type_, "status": self.status, "details": details}

    def of_container(self) -> list[Json]:
        """As each container has it."""
        if not self.address:
            return []
        return [{"attachmentId": self.id, "privateIpv4Address": self.address}]


def _mac(eni: str) -> str:
    digits = eni.removeprefix("eni-")[:10]
    return ":".join(["0a", *(digits[at : at + 2] for at in range(0, 10, 2))])


def _dns(address: str) -> str:
    return f"ip-{address.replace('.', '-')}.ec2.internal"


class Network:
    """The subnets of the account. Where none are named, each well-formed ID is one of a /24."""

    def __init__(self, region: str, subnets: Mapping[str, int]) -> None:
        self._region = region
        self._named = bool(subnets)
        self._sizes = dict(subnets)
        self._used: dict[str, set[str]] = {}

    def check(self, configuration: Json) -> None:
        """InvalidParameterException for subnets and security groups that are not there."""
        subnets: Sequence[str] = configuration["subnets"]
        groups: Sequence[str] = configuration.get("securityGroups", ())
        if not 1 <= len(subnets) <= MAX_SUBNETS:
            raise _invalid(f"subnets must have between 1 and {MAX_SUBNETS} items.")
        if len(groups) > MAX_GROUPS:
            raise _invalid(f"securityGroups can have at most {MAX_GROUPS} items.")
        for subnet in subnets:
            if not self._is_known(subnet):
                raise _invalid(
                    f"Error retrieving subnet information for [{subnet}]: The subnet ID '{subnet}'"
                    " does not exist (ErrorCode: InvalidSubnetID.NotFound)"
                )
        for group in groups:
            if not _GROUP.fullmatch(group):
                raise _invalid(
                    f"Error retrieving security group information for [{group}]: The security"
                    f" group '{group}' does not exist (ErrorCode: InvalidGroup.NotFound)"
                )

    def _is_known(self, subnet: str) -> bool:
        return subnet in self._sizes if self._named else bool(_SUBNET.fullmatch(subnet))

    def interface(self, subnets: Sequence[str]) -> Interface:
        """An interface in the subnet that has the most room; it may have none."""
        subnet = max(subnets, key=self.free)
        zone = f"{self._region}{'abcdef'[sum(subnet.encode()) % 3]}"
        return Interface(subnet, zone)

    def free(self, subnet: str) -> int:
        """Addresses that nobody has."""
        return self._sizes.get(subnet, FREE) - len(self._used.get(subnet, ()))

    def attach(self, interface: Interface) -> bool:
        """Gives it an address; False where its subnet is full."""
        if self.free(interface.subnet) <= 0:
            return False
        used = self._used.setdefault(interface.subnet, set())
        number = 16 + list(self._used).index(interface.subnet) % 200
        host = 4
        while (address := f"127.{number}.{host // 256}.{host % 256}") in used:
            host += 1
        used.add(address)
        interface.address = address
        return True

    def release(self, interface: Interface) -> None:
        """Takes its address back; again: nothing to do."""
        self._used.get(interface.subnet, set()).discard(interface.address)
        interface.status = "DELETED"
