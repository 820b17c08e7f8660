"""A session of the SDK and its clients: what is made anew when its credentials are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import boto3
from botocore import exceptions as sdk
from botocore.config import Config

_STALE = frozenset(
    {
        "ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId",
        "InvalidAccessKeyId", "UnrecognizedClientException",
    }
)  # fmt: skip
"""Refusals of credentials that somebody may have replaced."""
_BARE = frozenset({"400", "403"})
"""What those are for HEAD, whose answers have no body."""
_UNKNOWN = (sdk.NoCredentialsError, sdk.CredentialRetrievalError, sdk.TokenRetrievalError)


def is_stale(error: Exception) -> bool:
    """Whether nothing was done, since the credentials were refused or there were none."""
    if not isinstance(error, sdk.ClientError):
        return isinstance(error, _UNKNOWN)
    code = str((error.response.get("Error") or {}).get("Code", ""))
    return code in _STALE or (code in _BARE and error.operation_name.startswith("Head"))


class Generation:
    """One session. Its clients are closed once it is retired and no call of theirs is under way.

    The SDK reads a file with credentials once for each session. BotoCoreError, ValueError.
    """

    def __init__(self, region: str | None, endpoint: str | None, given: Mapping[str, str]) -> None:
        """`given`: fixed credentials; empty: the SDK finds them."""
        self.session = boto3.session.Session(region_name=region, **given)
        self._endpoint = endpoint
        self.clients: dict[str, Any] = {}
        self._calls = 0
        self._retired = False
        self._lock = threading.Lock()

    def make(self, service: str, config: Config) -> Any:
        """A client. BotoCoreError, ValueError."""
        return self.session.client(service, endpoint_url=self._endpoint, config=config)

    def keys(self) -> tuple[str, str, str] | None:
        """The credentials; None: there are none."""
        try:
            found = self.session.get_credentials()
            if found is None:
                return None
            # What has to be fetched is fetched here.
            keys = found.get_frozen_credentials()
        except (sdk.BotoCoreError, sdk.ClientError, ValueError, RuntimeError):
            return None
        return keys.access_key, keys.secret_key, keys.token

    def submit(self, pool: Executor, work: Callable[[], Any]) -> Future[Any]:
        """Does it in a thread; until it is done the clients stay open, whoever waits for it."""
        future = pool.submit(work)
        with self._lock:
            self._calls += 1
        future.add_done_callback(lambda _: self._left())
        return future

    def _left(self) -> None:
        with self._lock:
            self._calls -= 1
            is_last = self._retired and not self._calls
        if is_last:
            self._close()

    def retire(self) -> None:
        """No call begins here any more."""
        with self._lock:
            self._retired = True
            is_idle = not self._calls
        if is_idle:
            self._close()

    def _close(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()
