"""What Fargate charges: a table of list prices by region, with the day and the place of each.

It ships for a few regions (`price_table.json`); `refresh` reads those of any region from the AWS
Price List into the cache, and the newer of both counts. Discounts, NAT, logs and traffic are not in
it.

A task is billed from the start of its images' download to its end, by the second, for a minute at
least (https://aws.amazon.com/fargate/pricing/).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import boto3
from botocore import exceptions as sdk
from botocore.config import Config

from adapters.fargate.clients import credentials
from adapters.fargate.errors import translated
from adapters.fargate.sizes import STORAGE, Size
from bridge.errors import Unavailable
from bridge.groups.prices import PriceTable

MINIMUM = 60.0
"""Seconds that a task is billed at least."""
PRICE_LIST = "https://api.pricing.us-east-1.amazonaws.com"
"""The Price List is asked there for every region."""
_LIST_REGION = "us-east-1"
_MEBIBYTES = 1024
"""Of a GB, as Fargate counts it."""
_USAGE = re.compile(
    r"(?:[A-Z0-9]+-)?(Fargate-(?:ARM-)?(?:vCPU-Hours:perCPU|GB-Hours)"
    r"|Fargate-EphemeralStorage-GB-Hours|PublicIPv4:InUseAddress)"
)
"""`usagetype` of the products that matter: Linux's, on demand. Some regions have no prefix."""
_PLACES = {
    "Fargate-vCPU-Hours:perCPU": ("vcpu", "amd64"),
    "Fargate-GB-Hours": ("gigabyte", "amd64"),
    "Fargate-ARM-vCPU-Hours:perCPU": ("vcpu", "arm64"),
    "Fargate-ARM-GB-Hours": ("gigabyte", "arm64"),
    "Fargate-EphemeralStorage-GB-Hours": ("storage", ""),
    "PublicIPv4:InUseAddress": ("address", ""),
}


@dataclass(frozen=True, slots=True)
class Prices:
    """One region's, in US dollars an hour."""

    read_on: date
    source: str
    vcpu: Mapping[str, Decimal] = field(default_factory=dict)
    """By architecture: amd64, arm64."""
    gigabyte: Mapping[str, Decimal] = field(default_factory=dict)
    """Of memory, by architecture."""
    storage: Decimal | None = None
    """Of a GB of ephemeral storage over what every task has."""
    address: Decimal | None = None
    """Of a public IPv4 address."""

    def hourly(
        self, size: Size, architecture: str, *, storage: int, public_ip: bool
    ) -> Decimal | None:
        """What a task costs. `storage`: GiB asked for, 0 for what it has anyway. None: some part of
        it has no price here."""
        vcpu, gigabyte = self.vcpu.get(architecture), self.gigabyte.get(architecture)
        if vcpu is None or gigabyte is None:
            return None
        total = vcpu * size.cpu / _MEBIBYTES + gigabyte * size.memory / _MEBIBYTES
        for needed, price in (
            (max(0, storage - STORAGE[0]), self.storage),
            (int(public_ip), self.address),
        ):
            if needed and price is None:
                return None
            total += needed * (price or 0)
        return total


def _read(plain: Mapping[str, Any]) -> Prices:
    def amounts(name: str) -> dict[str, Decimal]:
        return {machine: Decimal(text) for machine, text in plain[name].items()}

    def amount(name: str) -> Decimal | None:
        return Decimal(plain[name]) if plain.get(name) is not None else None

    return Prices(
        date.fromisoformat(plain["read_on"]),
        plain["source"],
        amounts("vcpu"),
        amounts("gigabyte"),
        amount("storage"),
        amount("address"),
    )


TABLE = PriceTable("fargate", __package__, _read)
"""All of them by region."""


# The AWS Price List.


def refresh(region: str) -> str:
    """Reads a region's prices with the SDK's own credentials and keeps them; what was read, in
    words. Takes seconds. Unauthorized (it takes pricing:GetProducts), Unavailable."""
    found: dict[str, Any] = {"vcpu": {}, "gigabyte": {}, "storage": None, "address": None}
    count = 0
    for usage, price in _products(region):
        name, machine = _PLACES[usage]
        count += 1
        if machine:
            found[name][machine] = price
        else:
            found[name] = price
    if not found["vcpu"]:
        raise Unavailable(f"the AWS Price List has no prices of Fargate in {region}")
    today = datetime.now(UTC).date().isoformat()
    TABLE.keep(region, {"read_on": today, "source": PRICE_LIST, **found})
    return f"read {count} prices of {region} from the AWS Price List; kept in {TABLE.cache}"


def _products(region: str) -> Iterator[tuple[str, str]]:
    """(usage without the region's prefix, US dollars)."""
    own = os.environ.get("AWS_ENDPOINT_URL_PRICING")
    try:
        client = boto3.session.Session(**credentials(own)).client(
            "pricing", region_name=_LIST_REGION, config=Config(user_agent_extra="podbridge")
        )
        try:
            for service in ("AmazonECS", "AmazonVPC"):
                pages = client.get_paginator("get_products").paginate(
                    ServiceCode=service,
                    Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
                    FormatVersion="aws_v1",
                )
                for page in pages:
                    for text in page["PriceList"]:
                        yield from _price(json.loads(text))
        finally:
            client.close()
    except (sdk.ClientError, sdk.BotoCoreError) as error:
        raise translated(error, "pricing:GetProducts", changes=False) from None


def _price(product: Any) -> Iterator[tuple[str, str]]:
    match = _USAGE.fullmatch(product["product"]["attributes"].get("usagetype", ""))
    if match is None:
        return
    for offer in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in offer["priceDimensions"].values():
            price = dimension["pricePerUnit"].get("USD")
            if price is not None and Decimal(price):
                yield match[1], f"{Decimal(price).normalize():f}"
                return
