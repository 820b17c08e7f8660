"""From an HTTP request to its answer: the operation, its checks, faults, limits and the ledger."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import OperationModel

from adapters.simulators.aws import chunks, models, protocols, restxml
from adapters.simulators.aws.account import Account
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.faults import error_of
from adapters.simulators.aws.service import Service
from adapters.simulators.aws.settings import Fault
from adapters.simulators.aws.shapes import Json, Mismatch, check
from adapters.simulators.common.names import uuid_id
from adapters.simulators.common.web import Answer, Lost, Request

_logger = logging.getLogger(__name__)
_SCOPE = re.compile(r"Credential=([^/,]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed, as the signature's scope says: it is not checked."""

    key: str
    region: str
    service: str


def caller_of(request: Request) -> Caller | None:
    """The scope of the Authorization header, or of a presigned URL; None: nobody signed."""
    header = request.headers.get("authorization", "")
    scope = f"Credential={request.parameters.get('X-Amz-Credential', '')}/"
    found = _SCOPE.search(header) or _SCOPE.search(scope.removesuffix("/"))
    return Caller(found[1], found[2], found[3]) if found else None


class Dispatcher:
    """Answers requests for one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def answer(self, request: Request) -> Answer:
        """The answer. Lost: the connection is to be closed without one."""
        request_id = uuid_id()
        caller = caller_of(request)
        service = _service_of(request, caller)
        if service is None:
            return _no_service(request, request_id)
        call = _Call(self._account, self._account.services[service], request, caller)
        lost = False
        error: ApiError | None = None
        try:
            answer = await call.run(request_id)
        except ApiError as problem:
            error = problem
            answer = _refusal(service, problem, request, request_id)
        except Lost:
            lost = True
        except Exception as mistake:
            # A mistake of the simulator's own must be seen as one, and ends no other call.
            _logger.exception("%s:%s", service, call.name)
            self._account.mistakes.append(f"{service}:{call.name}: {mistake!r}")
            error = ApiError("InternalFailure", "The simulator has failed.", 500)
            answer = _refusal(service, error, request, request_id)
        self._account.ledger.note(
            f"{service}:{call.name or 'unknown'}",
            caller.key if caller else "nobody",
            error.code if error else "",
            error.message if error else "",
        )
        if lost:
            raise Lost
        ids = {"x-amzn-RequestId": request_id, "x-amz-request-id": request_id}
        return Answer(answer.status, answer.body, {**answer.headers, **ids})


def _service_of(request: Request, caller: Caller | None) -> str | None:
    target = request.headers.get("x-amz-target", "").partition(".")[0]
    if target:
        return models.by_target().get(target)
    if caller is not None:
        return models.by_signing_name().get(caller.service)
    if request.method == "POST" and b"Action=" in request.body[:1000]:
        return "sts"
    return "s3"


def _no_service(request: Request, request_id: str) -> Answer:
    if "x-amz-target" in request.headers:
        return protocols.json_error(ApiError("UnknownOperationException", ""), "1.1")
    words = "This service is not simulated."
    return protocols.query_error(ApiError("InvalidAction", words), request_id, "")


def _refusal(service: str, error: ApiError, request: Request, request_id: str) -> Answer:
    protocol = models.model(service).metadata["protocol"]
    if protocol == "json":
        return protocols.json_error(error, models.model(service).metadata["jsonVersion"])
    if protocol == "query":
        return protocols.query_error(
            error, request_id, models.model(service).metadata["xmlNamespace"]
        )
    if request.method == "HEAD":
        return Answer(error.status)
    return restxml.error(error, request_id, request.path)


class _Call:
    """One call on its way."""

    def __init__(
        self,
        account: Account,
        service: Service,
        request: Request,
        caller: Caller | None,
    ) -> None:
        self._account = account
        self._service = service
        self._request = request
        self._caller = caller
        self._protocol = str(models.model(service.name).metadata["protocol"])
        self.name = ""
        """The operation's, once that is known."""

    async def run(self, request_id: str) -> Answer:
        """The answer. ApiError, Lost."""
        self._authenticate()
        operation = self._operation()
        key = self._caller.key if self._caller else None
        faults = self._account.faults.of_call(self._service.name, self.name, key)
        await self._strike(faults)
        self._account.buckets.call(self._service.name, self.name)
        values = self._values(operation)
        result = self._service.operations[self.name](values)
        if inspect.isawaitable(result):
            result = await result
        if any(one.kind == "lost" for one in faults):
            raise Lost
        self._check_answer(operation, result)
        return self._write(operation, result, request_id)

    def _authenticate(self) -> None:
        caller, is_s3 = self._caller, self._service.name == "s3"
        if caller is None:
            if is_s3:
                raise ApiError("AccessDenied", "Access Denied", 403)
            raise ApiError(
                "MissingAuthenticationTokenException", "Missing Authentication Token", 403
            )
        if caller.region != self._account.place.region:
            words = f"Credential should be scoped to a valid region, not '{caller.region}'."
            raise ApiError(
                "AuthorizationHeaderMalformed" if is_s3 else "InvalidSignatureException",
                words,
                400 if is_s3 else 403,
            )

    def _operation(self) -> OperationModel:
        simulated = self._service.operations
        found = self._find(simulated)
        if found is not None:
            self.name = found.name
        if found is None or found.name not in simulated:
            raise _unknown(self._protocol, self.name)
        return found

    def _find(self, simulated: Mapping[str, Any]) -> OperationModel | None:
        request, service = self._request, self._service.name
        if self._protocol == "rest-xml":
            if "x-amz-copy-source" in request.headers:
                # A copy is a PUT of an object but for this header.
                return models.operation(service, "CopyObject")
            return restxml.operation_of(service, request, simulated)
        if self._protocol == "query":
            name = re.search(rb"(?:^|&)Action=(\w+)", request.body)
            return models.operation(service, name[1].decode()) if name else None
        name_ = request.headers.get("x-amz-target", "").partition(".")[2]
        return models.operation(service, name_)

    async def _strike(self, faults: list[Fault]) -> None:
        for one in faults:
            if one.kind == "delay":
                await self._account.clock.sleep(one.seconds)
        for one in faults:
            error = error_of(one, self._service.name)
            if error is not None:
                raise error

    def _values(self, operation: OperationModel) -> Json:
        shape = operation.input_shape
        try:
            if self._protocol == "json":
                values = protocols.parse_json(self._request.body, shape)
            elif self._protocol == "query":
                values = protocols.parse_query(self._request.body, operation)
            else:
                values = restxml.parse(chunks.whole(self._request), operation)
            if shape is not None:
                check(values, shape)
        except Mismatch as mismatch:
            raise _refused(self._service, self._protocol, mismatch) from None
        except ValueError as error:
            raise ApiError("SerializationException", str(error)) from None
        return values

    def _check_answer(self, operation: OperationModel, result: Json) -> None:
        shape = operation.output_shape
        try:
            if shape is not None:
                check(result, shape)
            elif result:
                raise Mismatch("", "unknown", "the operation has no answer")
        except Mismatch as mismatch:
            words = f"{self._service.name}:{self.name}: {mismatch}"
            self._account.mistakes.append(words)
            _logger.error("an answer does not fit the model: %s", words)
            raise ApiError("InternalFailure", "The answer does not fit the model.", 500) from None

    def _write(self, operation: OperationModel, result: Json, request_id: str) -> Answer:
        metadata = models.model(self._service.name).metadata
        if self._protocol == "json":
            kind = f"application/x-amz-json-{metadata['jsonVersion']}"
            body = protocols.write_json(result, operation.output_shape)
            return Answer(200, body, {"Content-Type": kind})
        if self._protocol == "query":
            space = metadata["xmlNamespace"]
            body = protocols.write_query(result, operation, request_id, space)
            return Answer(200, body, {"Content-Type": "text/xml"})
        answer = restxml.write(result, operation)
        if "Content-Range" in answer.headers:
            return Answer(206, answer.body, answer.headers)
        return answer


def _unknown(protocol: str, name: str) -> ApiError:
    if protocol == "rest-xml":
        words = "A header you provided implies functionality that is not implemented."
        return ApiError("NotImplemented", words, 501)
    if protocol == "query":
        return ApiError("InvalidAction", f"Could not find operation {name}")
    return ApiError("UnknownOperationException", "")


def _refused(service: Service, protocol: str, mismatch: Mismatch) -> ApiError:
    if mismatch.kind in ("type", "unknown"):
        if protocol == "json":
            return ApiError("SerializationException", str(mismatch))
        return ApiError(
            "InvalidArgument" if service.name == "s3" else service.invalid, str(mismatch)
        )
    return ApiError(service.invalid, mismatch.as_validation())
