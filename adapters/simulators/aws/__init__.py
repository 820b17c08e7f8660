"""AWS on this machine: ECS on Fargate, CloudWatch Logs, S3, Secrets Manager, SQS and what goes with
them, for any AWS SDK that is given an endpoint.

Requests and answers are held against botocore's own models of the services. Tasks really run, as
processes or in a container engine. `docs/simulators.md` says what is simulated and what is not.
"""

from __future__ import annotations

from adapters.simulators.aws.server import Simulator
from adapters.simulators.aws.settings import Bucket, Fault, Settings, Timing

__all__ = ["Bucket", "Fault", "Settings", "Simulator", "Timing"]
