"""The rules for names and small values: each takes a value and gives what is wrong, or None."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], str | None]
"""value -> what was found and what is allowed, or None where all is well."""

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SEARCH_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH = re.compile(rf"{_SEARCH_LABEL}(\.{_SEARCH_LABEL})*")
_KEY = re.compile("[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_CONFIG_KEY = re.compile("[-._a-zA-Z0-9]+")
_PORT_NAME = re.compile("(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_ENV_NAME = re.compile("[ -<>-~]+")
_HEADER = re.compile("[-A-Za-z0-9]+")


def shown(value: object) -> str:
    """A value in quotes, cut short."""
    text = str(value)
    return f'"{text[:60]}..."' if len(text) > 64 else f'"{text}"'


def _matching(pattern: re.Pattern[str], longest: int, allowed: str) -> Rule:
    def rule(value: Any) -> str | None:
        if value == "":
            return f"must not be empty; allowed: {allowed}"
        if len(value) > longest:
            return f"found {len(value)} characters; allowed: at most {longest}"
        if not pattern.fullmatch(value):
            return f"found {shown(value)}; allowed: {allowed}"
        return None

    return rule


dns_label = _matching(
    _DNS_LABEL,
    63,
    'lower-case letters, digits and "-", beginning and ending with a letter or digit',
)
dns_subdomain = _matching(
    _DNS_SUBDOMAIN,
    253,
    'lower-case letters, digits, "-" and ".", each part beginning and ending with a letter or '
    "digit",
)
config_key = _matching(_CONFIG_KEY, 253, 'letters, digits, "-", "_" and "."')
port_name = _matching(
    _PORT_NAME, 15, 'lower-case letters, digits and single "-" inside, with at least one letter'
)
env_name = _matching(_ENV_NAME, 1 << 20, 'printable ASCII characters except "="')
header_name = _matching(_HEADER, 1 << 20, 'letters, digits and "-"')
search_domain = _matching(_SEARCH, 253, "a DNS domain")


def data_key(value: Any) -> str | None:
    """A key of a ConfigMap or a Secret: it may become a file's name."""
    if value in (".", "..") or value.startswith(".."):
        return f"found {shown(value)}; allowed: a key that does not begin with '..' and is not '.'"
    return config_key(value)


def qualified_name(value: Any) -> str | None:
    """A label's key: an optional DNS prefix and "/", then at most 63 characters."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        return f'found {shown(value)}; allowed: at most one "/"'
    if slash and (problem := dns_subdomain(prefix)):
        return f"prefix: {problem}"
    if len(name) > 63:
        return f"found a name of {len(name)} characters; allowed: at most 63"
    if not _KEY.fullmatch(name):
        return (
            f'found {shown(value)}; allowed: letters, digits, "-", "_" and ".", beginning and '
            'ending with a letter or digit, with an optional DNS prefix and "/"'
        )
    return None


def annotation_key(value: Any) -> str | None:
    """An annotation's key: a label's, whatever the case of its letters."""
    return qualified_name(value.lower())


def label_value(value: Any) -> str | None:
    """A label's value: empty, or at most 63 characters."""
    if len(value) > 63:
        return f"found {len(value)} characters; allowed: at most 63"
    if value and not _KEY.fullmatch(value):
        return (
            f'found {shown(value)}; allowed: letters, digits, "-", "_" and ".", beginning and '
            "ending with a letter or digit, or nothing"
        )
    return None


def not_empty(value: Any) -> str | None:
    """Anything but an empty string or list."""
    return None if value else "must not be empty"


def trimmed(value: Any) -> str | None:
    """An image: not empty, without white space around it."""
    if not value:
        return "must not be empty"
    return (
        f"found {shown(value)}; allowed: no white space around it"
        if value.strip() != value
        else None
    )


def port(value: Any) -> str | None:
    """A port by number or by name."""
    if isinstance(value, str):
        return port_name(value)
    return None if 1 <= value <= 65535 else f"found {value}; allowed: 1 to 65535"


def at_least(low: int, high: int | None = None) -> Rule:
    """A whole number of a range."""
    allowed = f"{low} to {high}" if high is not None else f"{low} or more"

    def rule(value: Any) -> str | None:
        if value < low or (high is not None and value > high):
            return f"found {value}; allowed: {allowed}"
        return None

    return rule


def one_of(*values: str) -> Rule:
    """One of a few words, or nothing (which is the default's place)."""
    allowed = ", ".join(value for value in values if value)

    def rule(value: Any) -> str | None:
        return None if value in values else f"found {shown(value)}; allowed: {allowed}"

    return rule


def file_mode(value: Any) -> str | None:
    """Permission bits: 0 to 0777."""
    if 0 <= value <= 0o777:
        return None
    return f"found {value}; allowed: 0 to 0777 (octal), which is 0 to 511"


def no_back_steps(value: Any) -> str | None:
    """A path with no ".." in it."""
    return f'found {shown(value)}; allowed: no ".."' if ".." in value.split("/") else None


def relative_path(value: Any) -> str | None:
    """A path below a volume's root, or nothing."""
    if value.startswith("/"):
        return f"found {shown(value)}; allowed: a relative path"
    return no_back_steps(value)


def projected_path(value: Any) -> str | None:
    """A file's path in a volume: relative, not empty, not beginning with ".."."""
    if value.startswith(".."):
        return f"found {shown(value)}; allowed: a path that does not begin with '..'"
    return relative_path(value) if value else "must not be empty"


def mount_path(value: Any) -> str | None:
    """Where a volume is mounted: absolute, without a colon (container engines split there)."""
    if not value.startswith("/"):
        return f'found {shown(value)}; allowed: an absolute path ("/data")'
    return f'found {shown(value)}; allowed: no ":"' if ":" in value else None


def ip_address(value: Any) -> str | None:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return f"found {shown(value)}; allowed: an IP address"
    return None


def dns_search(value: Any) -> str | None:
    """A search domain of a resolver; one trailing point is allowed."""
    return None if value == "." else search_domain(value.removesuffix("."))
