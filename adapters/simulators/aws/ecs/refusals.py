"""ECS's errors that more than one part of it raises."""

from __future__ import annotations

from adapters.simulators.aws.errors import ApiError


def client(message: str) -> ApiError:
    """ClientException."""
    return ApiError("ClientException", message)


def invalid(message: str) -> ApiError:
    """InvalidParameterException."""
    return ApiError("InvalidParameterException", message)


def no_cluster() -> ApiError:
    """ClusterNotFoundException."""
    return ApiError("ClusterNotFoundException", "Cluster not found.")


NO_SIZE = (
    "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon"
    " ECS documentation for the valid values."
)
SHARED_NAME = (
    "The secret name must be unique and not shared with any new or existing environment variables"
    " set on the container, such as '{}'."
)
CONCURRENT = "Too many concurrent attempts to create a new revision of the specified family."
"""A throttle that the SDK does not take for one."""
