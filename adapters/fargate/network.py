"""How subnets reach the internet, by their route tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

_EVERYWHERE = ("0.0.0.0/0", "::/0")


class Way(StrEnum):
    """The way out of a subnet."""

    PUBLIC = "an internet gateway"
    """Only who has a public address gets out."""
    PRIVATE = "a NAT or another network"
    NONE = "none"


def ways(subnets: Iterable[str], tables: Iterable[Mapping[str, Any]]) -> dict[str, Way]:
    """The way out of each subnet. `tables`: all route tables of their VPC; a subnet that no table
    names has the main one."""
    main: Way = Way.NONE
    named: dict[str, Way] = {}
    for table in tables:
        way = _way(table.get("Routes") or ())
        for one in table.get("Associations") or ():
            if one.get("Main"):
                main = way
            elif one.get("SubnetId"):
                named[one["SubnetId"]] = way
    return {one: named.get(one, main) for one in subnets}


def _way(routes: Iterable[Mapping[str, Any]]) -> Way:
    for one in routes:
        everywhere = one.get("DestinationCidrBlock") or one.get("DestinationIpv6CidrBlock")
        if everywhere not in _EVERYWHERE or one.get("State") == "blackhole":
            continue
        return Way.PUBLIC if str(one.get("GatewayId", "")).startswith("igw-") else Way.PRIVATE
    return Way.NONE
