"""How the bucket has to be, by S3's answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.fargate import remedies

Answer = Mapping[str, Any]

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@dataclass(frozen=True, slots=True)
class Look:
    """Something that S3 tells of a bucket."""

    action: str
    """What IAM calls it, which is not always the call's name."""
    absent: str = ""
    """S3's error where it is not configured; empty: then the answer says nothing."""


LOOKS: Mapping[str, Look] = {
    "get_bucket_encryption": Look(
        "s3:GetEncryptionConfiguration", "ServerSideEncryptionConfigurationNotFoundError"
    ),
    "get_public_access_block": Look(
        "s3:GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration"
    ),
    "get_bucket_lifecycle_configuration": Look(
        "s3:GetLifecycleConfiguration", "NoSuchLifecycleConfiguration"
    ),
    "get_bucket_versioning": Look("s3:GetBucketVersioning"),
}
"""By the call."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a bucket has to have."""

    looks: tuple[str, ...]
    """The calls whose answers, together, tell."""
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


def forgets(answer: Answer, owner: str) -> bool:
    """Whether payloads that were deleted are gone: there are no versions, not even of the time
    before they were suspended, or a rule removes those that are no longer current."""
    folder = f"{owner}/payloads/"
    return not answer.get("Status") or any(_lets_go(one, folder) for one in answer.get("Rules", ()))


def _lets_go(rule: Answer, folder: str) -> bool:
    action = rule.get("NoncurrentVersionExpiration", {})
    # With so many that are kept, those are kept for ever.
    is_whole = "NoncurrentDays" in action and not action.get("NewerNoncurrentVersions")
    return is_whole and _covers(rule, folder)


def _expires(rule: Answer, folder: str) -> bool:
    return not {"Days", "Date"}.isdisjoint(rule.get("Expiration", {})) and _covers(rule, folder)


def _covers(rule: Answer, folder: str) -> bool:
    """Whether the rule is in force for all objects there."""
    # A rule without a filter has the prefix of the older form, or is for the whole bucket.
    scope = rule["Filter"] if "Filter" in rule else {"Prefix": rule.get("Prefix", "")}
    return (
        rule["Status"] == "Enabled"
        # Tags and sizes leave objects out.
        and set(scope) <= {"Prefix"}
        and folder.startswith(scope.get("Prefix", ""))
    )


def _lifecycle(name: str, region: str, owner: str, answer: Answer) -> str:
    return remedies.lifecycle(name, region, owner, answer.get("Rules", ()))


SETTINGS = (
    Setting(
        ("get_bucket_encryption",),
        "not encrypted",
        encrypted,
        lambda name, region, owner, answer: remedies.encryption(name, region),
    ),
    Setting(
        ("get_public_access_block",),
        "not closed to the public",
        closed,
        lambda name, region, owner, answer: remedies.public_access(name, region),
    ),
    Setting(("get_bucket_lifecycle_configuration",), "never tidied up", tidied, _lifecycle),
    Setting(
        ("get_bucket_versioning", "get_bucket_lifecycle_configuration"),
        "it keeps versions of what was deleted, pods' secrets among it",
        forgets,
        _lifecycle,
    ),
)
