"""Microsoft Entra ID, as far as a client asks it for a token: client credentials, v2.0.

Tokens live for an hour of this machine's time, whatever the time scale: the SDK counts with it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from adapters.simulators.azure.errors import ArmError
from adapters.simulators.azure.settings import Settings
from adapters.simulators.common.web import Answer, Json, Request

LIFE = 3599
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Token:
    """Who has it, and until when."""

    caller: str
    ends: float


class Tokens:
    """Those that were given out. `base` says where the server is."""

    def __init__(self, settings: Settings, base: Callable[[], str]) -> None:
        self._settings = settings
        self._base = base
        self._given: dict[str, Token] = {}

    def issue(self, caller: str) -> str:
        """A new one for that caller."""
        text = secrets.token_urlsafe(48)
        self._given[text] = Token(caller, time.time() + LIFE)
        return text

    def caller(self, header: str) -> str:
        """Whose Authorization header this is. ArmError 401."""
        if not header:
            raise self._refused(
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        kind, _, text = header.partition(" ")
        token = self._given.get(text.strip())
        if kind.lower() != "bearer" or token is None:
            raise self._refused("InvalidAuthenticationToken", "The access token is invalid.")
        if token.ends < time.time():
            raise self.expired()
        return token.caller

    def expired(self) -> ArmError:
        """The refusal of a token that is over."""
        return self._refused("ExpiredAuthenticationToken", "The access token has expired.")

    def _refused(self, code: str, message: str) -> ArmError:
        authority = f"{self._base()}/{self._settings.tenant}"
        challenge = f'Bearer authorization_uri="{authority}", error="invalid_token"'
        return ArmError(401, code, message, {"WWW-Authenticate": challenge})

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request for a token or its metadata; None: it is none."""
        tenant, _, what = unquote(request.path).strip("/").partition("/")
        if what == "v2.0/.well-known/openid-configuration" and request.method == "GET":
            return _json(200, self._metadata(f"{self._base()}/{tenant}"))
        if what != "oauth2/v2.0/token" or request.method != "POST":
            return None
        if tenant != self._settings.tenant:
            words = f"AADSTS90002: Tenant '{tenant}' not found."
            return _json(400, {"error": "invalid_request", "error_description": words})
        form = parse_qs(request.body.decode("utf-8", "replace"))
        return self._grant({key: values[0] for key, values in form.items()})

    def _grant(self, given: dict[str, str]) -> Answer:
        client = given.get("client_id", "")
        if given.get("grant_type") != "client_credentials":
            words = "AADSTS70003: The grant type is not simulated."
            return _json(400, {"error": "unsupported_grant_type", "error_description": words})
        if client not in self._settings.clients:
            words = f"AADSTS700016: Application with identifier '{client}' was not found."
            return _json(400, {"error": "unauthorized_client", "error_description": words})
        secret = self._settings.clients[client]
        if not secrets.compare_digest(given.get("client_secret", "").encode(), secret.encode()):
            words = "AADSTS7000215: Invalid client secret provided."
            return _json(401, {"error": "invalid_client", "error_description": words})
        if not given.get("scope", "").endswith("/.default"):
            words = "AADSTS1002012: The scope must end with /.default."
            return _json(400, {"error": "invalid_scope", "error_description": words})
        token = {"access_token": self.issue(client), "token_type": "Bearer"}
        return _json(200, {**token, "expires_in": LIFE, "ext_expires_in": LIFE})

    def _metadata(self, authority: str) -> Json:
        return {
            "issuer": f"{authority}/v2.0",
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
            "jwks_uri": f"{authority}/discovery/v2.0/keys",
        }


def _json(status: int, body: Json) -> Answer:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Answer(status, json.dumps(body).encode(), headers)
