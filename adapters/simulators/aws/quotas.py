"""Service Quotas, as far as Fargate's vCPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapters.simulators.aws import paging
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.settings import Settings
from adapters.simulators.aws.shapes import Json

ON_DEMAND = "L-3032A538"
SPOT = "L-36FBB829"
DEFAULT = 6.0


def _invalid(message: str) -> ApiError:
    return ApiError("IllegalArgumentException", message)


class Quotas:
    """What the account may have of Fargate."""

    name: ClassVar[str] = "service-quotas"
    invalid: ClassVar[str] = "IllegalArgumentException"

    def __init__(self, place: Place, settings: Settings) -> None:
        self._place = place
        self._values = {
            ON_DEMAND: ("Fargate On-Demand vCPU resource count", settings.fargate_vcpus),
            SPOT: ("Fargate Spot vCPU resource count", settings.fargate_spot_vcpus),
        }

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "GetServiceQuota": self._get,
            "GetAWSDefaultServiceQuota": self._get_default,
            "ListServiceQuotas": self._list,
        }

    def _quota(self, code: str, default: bool = False) -> Json:
        if code not in self._values:
            raise ApiError("NoSuchResourceException", "The request failed because the specified"
                           " service quota does not exist.")  # fmt: skip
        name, value = self._values[code]
        return {
            "ServiceCode": "fargate",
            "ServiceName": "AWS Fargate",
            "QuotaArn": self._place.arn("servicequotas", f"fargate/{code}"),
            "QuotaCode": code,
            "QuotaName": name,
            "Value": DEFAULT if default else value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def _service(self, given: Json) -> None:
        if given["ServiceCode"] != "fargate":
            raise ApiError("NoSuchResourceException", "The request failed because the specified"
                           " service does not exist.")  # fmt: skip

    def _get(self, given: Json) -> Json:
        self._service(given)
        return {"Quota": self._quota(given["QuotaCode"])}

    def _get_default(self, given: Json) -> Json:
        self._service(given)
        return {"Quota": self._quota(given["QuotaCode"], default=True)}

    def _list(self, given: Json) -> Json:
        self._service(given)
        found = [self._quota(code) for code in self._values]
        return paging.page(
            given, found, "Quotas", limit=100, refuse=_invalid, names=("NextToken", "MaxResults")
        )
