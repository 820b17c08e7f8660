"""The services that are simulated, by botocore's own models of them: the contract of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

SERVICES: tuple[str, ...] = (
    "ecs",
    "events",
    "kms",
    "logs",
    "s3",
    "secretsmanager",
    "service-quotas",
    "sqs",
    "ssm",
    "sts",
)
"""By the names of botocore's data."""


@cache
def model(service: str) -> ServiceModel:
    """The model; the latest one that botocore has."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def by_target() -> Mapping[str, str]:
    """Services by the prefix of their X-Amz-Target."""
    return {
        str(model(one).metadata["targetPrefix"]): one
        for one in SERVICES
        if "targetPrefix" in model(one).metadata
    }


@cache
def by_signing_name() -> Mapping[str, str]:
    """Services by the name in a signature's scope."""
    return {str(model(one).signing_name): one for one in SERVICES}


def operation(service: str, name: str) -> OperationModel | None:
    """The model of an operation; None where the service has no such one."""
    found = model(service)
    return found.operation_model(name) if name in found.operation_names else None
