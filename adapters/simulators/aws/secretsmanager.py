"""Secrets Manager: secrets, their versions and stages, and deletion that waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from adapters.simulators.aws import paging
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import hex_id, uuid_id

_DAY = 24 * 3600.0
CURRENT = "AWSCURRENT"
PREVIOUS = "AWSPREVIOUS"


@dataclass(slots=True)
class Version:
    """One value."""

    id: str
    created: float
    value: Json = field(repr=False)
    """SecretString or SecretBinary."""
    stages: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Secret:
    """One secret."""

    name: str
    arn: str
    created: float
    description: str = ""
    kms_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    changed: float = 0.0
    deleted: float | None = None
    """When its deletion was ordered."""
    window: float = 0.0
    """Seconds from then until it is gone."""


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)


def _missing() -> ApiError:
    return ApiError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")


class SecretsManager:
    """All secrets of the account."""

    name: ClassVar[str] = "secretsmanager"
    invalid: ClassVar[str] = "ValidationException"

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._secrets: dict[str, Secret] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "CreateSecret": self._create,
            "DeleteSecret": self._delete,
            "DescribeSecret": self._describe,
            "GetSecretValue": self.get,
            "ListSecrets": self._list,
            "PutSecretValue": self._put,
            "RestoreSecret": self._restore,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "UpdateSecret": self._update,
        }

    def _find(self, given: Json, *, deleted: bool = False) -> Secret:
        name = given["SecretId"]
        for one in list(self._secrets.values()):
            if one.deleted is not None and self._clock.passed(one.deleted) >= one.window:
                del self._secrets[one.name]
        for one in self._secrets.values():
            # An ARN without its random part is found too.
            if name in (one.name, one.arn, one.arn[:-7]):
                if one.deleted is not None and not deleted:
                    raise ApiError(
                        "InvalidRequestException",
                        "You can't perform this operation on the secret because it was marked for"
                        " deletion.",
                    )
                return one
        raise _missing()

    def _create(self, given: Json) -> Json:
        name = given["Name"]
        for one in self._secrets.values():
            if one.name != name:
                continue
            if one.deleted is not None:
                raise ApiError(
                    "InvalidRequestException",
                    "You can't create this secret because a secret with this name is already"
                    " scheduled for deletion.",
                )
            token = given.get("ClientRequestToken", "")
            if token in one.versions and one.versions[token].value == _value(given):
                return {"ARN": one.arn, "Name": name, "VersionId": token}
            raise ApiError(
                "ResourceExistsException",
                f"The operation failed because the secret {name} already exists.",
            )
        arn = self._place.arn("secretsmanager", f"secret:{name}-{hex_id(6)}")
        now = self._clock.now()
        made = Secret(name, arn, now, given.get("Description", ""), given.get("KmsKeyId", ""))
        made.tags = {one["Key"]: one.get("Value", "") for one in given.get("Tags", ())}
        made.changed = now
        self._secrets[name] = made
        answer = {"ARN": arn, "Name": name}
        if _value(given):
            answer["VersionId"] = self._add(made, given).id
        return answer

    def _add(self, secret: Secret, given: Json) -> Version:
        value = _value(given)
        if len(value) != 1:
            raise _invalid("You must provide either SecretString or SecretBinary.")
        token = given.get("ClientRequestToken") or uuid_id()
        found = secret.versions.get(token)
        if found is not None:
            if found.value != value:
                raise ApiError(
                    "ResourceExistsException",
                    f"You can't use ClientRequestToken {token} because that value is already in use"
                    " for a version of this secret with other content.",
                )
            return found
        made = Version(token, self._clock.now(), value)
        secret.versions[token] = made
        for stage in given.get("VersionStages", [CURRENT]):
            _move(secret, stage, made)
        secret.changed = made.created
        return made

    def _put(self, given: Json) -> Json:
        secret = self._find(given)
        made = self._add(secret, given)
        return {
            "ARN": secret.arn,
            "Name": secret.name,
            "VersionId": made.id,
            "VersionStages": list(made.stages),
        }

    def _update(self, given: Json) -> Json:
        secret = self._find(given)
        secret.description = given.get("Description", secret.description)
        secret.kms_key = given.get("KmsKeyId", secret.kms_key)
        answer = {"ARN": secret.arn, "Name": secret.name}
        if _value(given):
            answer["VersionId"] = self._add(secret, given).id
        return answer

    def get(self, given: Json) -> Json:
        """GetSecretValue."""
        secret = self._find(given)
        id_, stage = given.get("VersionId"), given.get("VersionStage")
        wanted = stage or (None if id_ else CURRENT)
        for one in secret.versions.values():
            if id_ in (None, one.id) and (wanted is None or wanted in one.stages):
                return {
                    "ARN": secret.arn,
                    "Name": secret.name,
                    "VersionId": one.id,
                    "VersionStages": list(one.stages) or [CURRENT],
                    "CreatedDate": one.created,
                    **one.value,
                }
        words = f"staging label: {wanted}" if wanted else f"VersionId: {id_}"
        raise ApiError(
            "ResourceNotFoundException",
            f"Secrets Manager can't find the specified secret value for {words}",
        )

    def _shown(self, one: Secret) -> Json:
        answer: Json = {
            "ARN": one.arn,
            "Name": one.name,
            "CreatedDate": one.created,
            "LastChangedDate": one.changed,
        }
        if one.tags:
            answer["Tags"] = [{"Key": key, "Value": value} for key, value in one.tags.items()]
        optional = {"Description": one.description, "KmsKeyId": one.kms_key}
        answer |= {key: value for key, value in optional.items() if value}
        if one.deleted is not None:
            answer["DeletedDate"] = one.deleted
        return answer

    def _describe(self, given: Json) -> Json:
        one = self._find(given, deleted=True)
        stages = {version.id: list(version.stages) for version in one.versions.values()}
        staged = {id_: names for id_, names in stages.items() if names}
        return {**self._shown(one), **({"VersionIdsToStages": staged} if staged else {})}

    def _list(self, given: Json) -> Json:
        found = [
            self._shown(one)
            for one in self._secrets.values()
            if (one.deleted is None or given.get("IncludePlannedDeletion"))
            and all(_passes(one, rule) for rule in given.get("Filters", ()))
        ]
        return paging.page(
            given,
            found,
            "SecretList",
            limit=100,
            refuse=_invalid,
            names=("NextToken", "MaxResults"),
        )

    def _delete(self, given: Json) -> Json:
        force = given.get("ForceDeleteWithoutRecovery", False)
        if force and "RecoveryWindowInDays" in given:
            raise _invalid(
                "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays."
            )
        days = given.get("RecoveryWindowInDays", 30)
        if not 7 <= days <= 30:
            raise _invalid("RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
        one = self._find(given, deleted=force)
        now = self._clock.now()
        if force:
            del self._secrets[one.name]
            return {"ARN": one.arn, "Name": one.name, "DeletionDate": now}
        one.deleted, one.window = now, days * _DAY
        return {"ARN": one.arn, "Name": one.name, "DeletionDate": now + days * _DAY}

    def _restore(self, given: Json) -> Json:
        one = self._find(given, deleted=True)
        one.deleted = None
        return {"ARN": one.arn, "Name": one.name}

    def _tag(self, given: Json) -> Json:
        tags = self._find(given).tags
        tags.update({one["Key"]: one.get("Value", "") for one in given["Tags"]})
        return {}

    def _untag(self, given: Json) -> Json:
        tags = self._find(given).tags
        for key in given["TagKeys"]:
            tags.pop(key, None)
        return {}


def _value(given: Json) -> Json:
    return {name: given[name] for name in ("SecretString", "SecretBinary") if name in given}


def _move(secret: Secret, stage: str, to: Version) -> None:
    """A stage is on one version only; what was current becomes the previous one."""
    for one in secret.versions.values():
        if stage in one.stages:
            one.stages.remove(stage)
            if stage == CURRENT and one is not to:
                _move(secret, PREVIOUS, one)
    to.stages.append(stage)


def _passes(one: Secret, rule: Json) -> bool:
    values = rule.get("Values", ())
    held = {
        "name": [one.name],
        "description": [one.description],
        "tag-key": list(one.tags),
        "tag-value": list(one.tags.values()),
        "all": [one.name, one.description, *one.tags, *one.tags.values()],
    }.get(rule.get("Key", ""), [])
    return any(item.startswith(value) for item in held for value in values)
