"""Takes out of calls what is an account's own: each thing gets a placeholder, always the same one.

A text is kept only where its member is known to be harmless (`OPEN`), and in what is kept, IDs,
addresses, keys and the account's own names are replaced one by one (`<subnet-1>`), so that it
keeps its form. Every other text is replaced as a whole. So what nobody thought of is out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]
"""Members from the outside in, without lists' numbers."""

_NAMES_AND_STATES = """
arn assignPublicIp awslogs-group awslogs-region awslogs-stream-prefix capacityProvider
capacityProviders cluster clusterArn clusterName clusters clientToken code command compatibilities
connectivity containerArn cpu cpuArchitecture credentialsParameter desiredStatus detail entryPoint
essential executionRoleArn family group healthStatus image imageDigest lastStatus launchType
logDriver memory mode name networkMode operatingSystemFamily platformFamily platformVersion
privateIpv4Address reason requiresCompatibilities runtimeId securityGroups startedBy status stopCode
stoppedReason subnets task taskArn taskArns taskDefinition taskDefinitionArn taskRoleArn tasks type
Bucket Code ETag EncodingType IfMatch IfNoneMatch Key Message Name Prefix StorageClass
logGroupName logStreamName
"""
OPEN = frozenset(_NAMES_AND_STATES.split())
"""Members whose texts keep their form."""
_OPEN_PAIRS = frozenset({("details", "value"), ("environmentFiles", "value")})
"""The same, by the member that they are in: other `value`s are variables' and tags'."""
_LEARNED = frozenset({"value", "SecretString", "Password"})
"""Members whose texts are replaced wherever else they come, too."""
_SHORTEST = 6
"""Characters of a text that is looked for elsewhere: shorter ones are parts of common words."""
_LONG = 10
"""Characters from which on a name is replaced inside of longer words, too."""
_OURS = "podbridge.io/"
_PUBLIC = frozenset({"public.ecr.aws"})
"""Registries that are everybody's."""
_DIGIT, _WORD, _APART = r"(?<![0-9])", r"(?<![0-9A-Za-z])", r"(?<![\w-])"
_PRINCIPAL = (
    r"(?:(?<=:user/)|(?<=:role/)|(?<=:group/)|(?<=:policy/)|(?<=:assumed-role/)"
    r"|(?<=:federated-user/))[\w+=,.@/-]*[\w+=@/-]"
)
"""Comes first: what follows a known role's name is a session's, which has a person's."""
_PATTERNS: Mapping[str, str] = {
    "key": r"\b(?:AKIA|ASIA|AIDA|AROA|AGPA|ANPA|ANVA)[A-Z0-9]{12,}\b(?::[\w+=,.@-]*[\w+=@-])?",
    "email": r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "organization": _APART + r"(?:o-[a-z0-9]{10,32}|ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}"
    r"|r-[a-z0-9]{4,32}|p-[a-z0-9]{8,128})(?![\w-])",
    "uuid": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "": r"\b(?P<id>subnet|sg|eni|vpc|vpce|fs|fsap|igw|rtb|eipalloc|i)-[0-9a-f]{8,}\b",
    "mac": r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b",
    "host": r"\b(?:ip|ec2)-\d{1,3}(?:-\d{1,3}){3}(?:\.[\w-]+)*\b|\b[\w.-]+\.amazonaws\.com\b",
    "ip": _DIGIT + r"\d{1,3}(?:\.\d{1,3}){3}(?![0-9])"
    r"|(?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![\w:])",
    "digest": r"sha256:[0-9a-f]{64}",
    "hex": _WORD + r"[0-9a-f]{24,}(?![0-9A-Za-z])",
    "opaque": _WORD + r"[A-Za-z0-9+=_]{40,}",
    "account": _DIGIT + r"[0-9]{12}(?![0-9])",
}  # fmt: skip
PLACEHOLDER = re.compile(r"<([A-Za-z][\w-]*)-(\d+)>")


class Redactor:
    """One transcript's placeholders."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """`known`: the account's own names, and what each is: `{"acme-pods": "bucket"}`."""
        self._placeholders: dict[str, str] = {}
        """By text: where it was first found gives its name."""
        self._counts: dict[str, int] = {}
        self._literals: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        for text, what in known.items():
            self.learn(text, what)

    def learn(self, text: str, what: str) -> None:
        """From now on that text is replaced wherever it is."""
        if text and text not in self._literals:
            self._literals[text] = what
            self._pattern = None
            self._placeholder(what, text)

    def text(self, text: str) -> str:
        """A text with the account's own replaced in it."""
        if text.startswith(_OURS):
            return text
        return self._compiled().sub(self._replaced, text)

    def image(self, image: str) -> None:
        """Learns an image's name, and what is asked for and told of in its place: without its tag,
        its registry, its path there."""
        self.learn(image, "image")
        repository = re.sub(r":[^:/]*$", "", image.partition("@")[0])
        registry, _, path = repository.partition("/")
        if not path:
            # Everybody's: a word that may be anything else, too.
            return
        self.learn(repository, "image")
        if not any(mark in registry for mark in ".:"):
            # An owner at the default registry.
            return
        if registry not in _PUBLIC:
            self.learn(registry, "registry")
        if "/" in path or len(path) >= _SHORTEST:
            self.learn(path, "repository")

    def gather(self, value: Any, path: Path = ()) -> None:
        """Learns what a plain value has, wherever it is in it: before any of a call is redacted."""
        if isinstance(value, Mapping):
            for key, one in value.items():
                self.gather(one, (*path, key))
        elif isinstance(value, list):
            for one in value:
                self.gather(one, path)
        elif isinstance(value, str) and not value.startswith(_OURS) and not _is_open(path):
            member = _member(path)
            if member in _LEARNED and len(value) >= _SHORTEST:
                self.learn(value, member)

    def value(self, value: Any) -> Any:
        """A plain value (`plain`), redacted."""
        self.gather(value)
        return self._redacted(value, ())

    def _redacted(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            return {self.text(key): self._redacted(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self._redacted(one, path) for one in value]
        if not isinstance(value, str) or not value or value.startswith(_OURS):
            return value
        return self.text(value) if _is_open(path) else self._placeholder(_member(path), value)

    def _compiled(self) -> re.Pattern[str]:
        if self._pattern is None:
            longest = sorted(self._literals, key=len, reverse=True)
            literals = "|".join(map(_literal, longest)) or "(?!)"
            named = (f"(?P<{what}>{one})" if what else one for what, one in _PATTERNS.items())
            # Names first: a bucket may look like something else.
            parts = [f"(?P<principal>{_PRINCIPAL})", f"(?P<known>{literals})", *named]
            self._pattern = re.compile("|".join(parts))
        return self._pattern

    def _replaced(self, match: re.Match[str]) -> str:
        found = match[0]
        if match["known"] is not None:
            return self._placeholder(self._literals[found], found)
        what = match["id"] or match.lastgroup or "text"
        return self._placeholder(what, found)

    def _placeholder(self, what: str, text: str) -> str:
        if text not in self._placeholders:
            self._counts[what] = self._counts.get(what, 0) + 1
            self._placeholders[text] = f"<{what}-{self._counts[what]}>"
        return self._placeholders[text]


def _is_open(path: Path) -> bool:
    return path[-1:] != () and (path[-1] in OPEN or path[-2:] in _OPEN_PAIRS)


def _member(path: Path) -> str:
    return re.sub(r"[^A-Za-z]", "", path[-1] if path else "") or "text"


def _literal(text: str) -> str:
    if len(text) >= _LONG:
        return re.escape(text)
    return rf"(?<![\w-]){re.escape(text)}(?![\w-])"
