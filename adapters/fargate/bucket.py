"""How the bucket has to be, by S3's answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.fargate import remedies

Answer = Mapping[str, Any]

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a bucket has to have."""

    call: str
    """Who is asked of S3."""
    absent: str
    """S3's error where it is not configured."""
    otherwise: str
    """What the bucket is where it does not hold."""
    holds: Callable[[Answer, str], bool]
    """Whether an answer is as it should be, for an owner. An empty one: nothing is configured."""
    remedy: Callable[[str, str, str, Answer], str]
    """What mends it: by the bucket's name, region, owner and the answer."""


def encrypted(answer: Answer, owner: str) -> bool:
    """Whether objects are encrypted by default."""
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
    return any("ApplyServerSideEncryptionByDefault" in one for one in rules)


def closed(answer: Answer, owner: str) -> bool:
    """Whether all four blocks are on: each leaves a way open that another closes."""
    blocks = answer.get("PublicAccessBlockConfiguration", {})
    return all(blocks.get(one) is True for one in _BLOCKS)


def tidied(answer: Answer, owner: str) -> bool:
    """Whether a rule removes all payloads in time."""
    return any(_expires(one, f"{owner}/payloads/") for one in answer.get("Rules", ()))


def _expires(rule: Answer, folder: str) -> bool:
    # A rule without a filter has the prefix of the older form, or is for the whole bucket.
    scope = rule["Filter"] if "Filter" in rule else {"Prefix": rule.get("Prefix", "")}
    return (
        rule["Status"] == "Enabled"
        and not {"Days", "Date"}.isdisjoint(rule.get("Expiration", {}))
        # Tags and sizes leave objects out.
        and set(scope) <= {"Prefix"}
        and folder.startswith(scope.get("Prefix", ""))
    )


SETTINGS = (
    Setting(
        "get_bucket_encryption",
        "ServerSideEncryptionConfigurationNotFoundError",
        "not encrypted",
        encrypted,
        lambda name, region, owner, answer: remedies.encryption(name, region),
    ),
    Setting(
        "get_public_access_block",
        "NoSuchPublicAccessBlockConfiguration",
        "not closed to the public",
        closed,
        lambda name, region, owner, answer: remedies.public_access(name, region),
    ),
    Setting(
        "get_bucket_lifecycle_configuration",
        "NoSuchLifecycleConfiguration",
        "never tidied up",
        tidied,
        lambda name, region, owner, answer: remedies.lifecycle(
            name, region, owner, answer.get("Rules", ())
        ),
    ),
)
