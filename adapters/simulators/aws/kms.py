"""KMS, as far as keys are named and described: what is encrypted with them is not our concern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import uuid_id

_DAY = 24 * 3600.0


class Kms:
    """All symmetric keys of the account."""

    name: ClassVar[str] = "kms"
    invalid: ClassVar[str] = "ValidationException"

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._keys: dict[str, Json] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "CreateKey": self._create,
            "DescribeKey": self._describe,
            "ScheduleKeyDeletion": self._delete,
        }

    def _create(self, given: Json) -> Json:
        spec = given.get("KeySpec", "SYMMETRIC_DEFAULT")
        if (
            spec != "SYMMETRIC_DEFAULT"
            or given.get("KeyUsage", "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT"
        ):
            raise ApiError("UnsupportedOperationException", "Only symmetric keys are simulated.")
        id_ = uuid_id()
        self._keys[id_] = {
            "AWSAccountId": self._place.account,
            "KeyId": id_,
            "Arn": self._place.arn("kms", f"key/{id_}"),
            "CreationDate": self._clock.now(),
            "Enabled": True,
            "Description": given.get("Description", ""),
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": False,
        }
        return {"KeyMetadata": self._keys[id_]}

    def _find(self, given: Json) -> Json:
        name = given["KeyId"]
        found = self._keys.get(name.rpartition("key/")[2])
        if found is None:
            arn = name if name.startswith("arn:") else self._place.arn("kms", f"key/{name}")
            raise ApiError("NotFoundException", f"Key '{arn}' does not exist")
        return found

    def _describe(self, given: Json) -> Json:
        return {"KeyMetadata": self._find(given)}

    def _delete(self, given: Json) -> Json:
        found = self._find(given)
        days = given.get("PendingWindowInDays", 30)
        if not 7 <= days <= 30:
            raise ApiError("ValidationException", "PendingWindowInDays must be between 7 and 30.")
        found |= {
            "Enabled": False,
            "KeyState": "PendingDeletion",
            "DeletionDate": self._clock.now() + days * _DAY,
        }
        return {
            "KeyId": found["Arn"],
            "DeletionDate": found["DeletionDate"],
            "KeyState": "PendingDeletion",
            "PendingWindowInDays": days,
        }
