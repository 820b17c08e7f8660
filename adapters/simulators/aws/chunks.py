"""Bodies in `aws-chunked` encoding: pieces with their sizes, and a checksum in the trailer."""

from __future__ import annotations

from dataclasses import replace

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.common.web import Request


def whole(request: Request) -> Request:
    """The request with its body as it was before it was cut up; the trailer's checksum is a header.
    ApiError IncompleteBody."""
    encodings = [one.strip() for one in request.headers.get("content-encoding", "").split(",")]
    if "aws-chunked" not in encodings:
        return request
    body, trailer = _join(request.body)
    if len(body) != int(request.headers.get("x-amz-decoded-content-length", len(body))):
        raise _incomplete()
    headers = {**request.headers, **trailer}
    rest = [one for one in encodings if one not in ("aws-chunked", "")]
    headers.pop("content-encoding")
    if rest:
        headers["content-encoding"] = ",".join(rest)
    return replace(request, body=body, headers=headers)


def _join(data: bytes) -> tuple[bytes, dict[str, str]]:
    pieces = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise _incomplete()
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        pieces.append(data[:size])
        data = data[size + 2 :]
    trailer: dict[str, str] = {}
    for line in data.split(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            trailer[name.strip().lower()] = value.strip()
    return b"".join(pieces), trailer


def _incomplete() -> ApiError:
    return ApiError(
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    )
