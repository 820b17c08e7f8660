"""Puts the configuration together: flag > PODBRIDGE_* > file > default, all mistakes at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge.addresses import is_local
from bridge.config import source
from bridge.config.cluster import problems
from bridge.config.models import API_VERSION, BackendConfig, Config, OptionsModel, leaves
from bridge.config.source import Path_, Source, join
from bridge.config.values import nearest, shown
from bridge.errors import BridgeError, Invalid, Violation

PREFIX = "PODBRIDGE_"
CONFIG_VARIABLE = "PODBRIDGE_CONFIG"
"""The file to read, where no flag names one."""
_INTERNAL = "PODBRIDGE__"
"""Variables that begin so are no configuration: our own processes tell each other things there."""
_SERVICE_LINK = re.compile(
    r"PODBRIDGE_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in every container beside a Service named podbridge or podbridge-*."""
_SECRETISH = re.compile(r"secret|passw|token|(^|_)key|credential", re.IGNORECASE)
_OWN_KEYS = frozenset(BackendConfig.model_fields)
_Model = TypeVar("_Model", bound=BaseModel)


def find(env: Mapping[str, str], directory: Path | None = None) -> Path | None:
    """The file that is read where none is named: ./podbridge.yaml, then the user's own, if any."""
    home = env.get("XDG_CONFIG_HOME")
    base = (
        Path(home) if home and Path(home).is_absolute() else Path(env.get("HOME", "")) / ".config"
    )
    here = (directory or Path()) / "podbridge.yaml"
    for path in (here, base / "podbridge" / "config.yaml"):
        if path.is_absolute() or path is here:
            try:
                if path.exists():
                    return path
            except OSError:
                # A directory that may not be searched: whatever is there is not for us.
                continue
    return None


def load(
    path: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    options_model: OptionsModel | None = None,
) -> Config:
    """The configuration. `flags` by path (`max_run`, `provider.listen`), None: not given.

    Without `options_model` the keys that a backend's type adds are kept as they are, unchecked.
    Raises one Invalid with every mistake in it.
    """
    named = path or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
    file = named or find(env)
    content = source.read(file) if file is not None else Source("")
    return _Loading(content, options_model).run(env, flags)


def check_text(text: str, name: str, options_model: OptionsModel | None = None) -> Config:
    """The configuration that a file of this text alone would give. Invalid as `load`."""
    return _Loading(source.parse(text, name), options_model).run({}, {})


def set_value(
    path: Path, key: str, value: Any, *, options_model: OptionsModel | None = None
) -> None:
    """Writes one value (`backends[0].max_pods`) to the file and leaves its comments alone.

    A text that reads as a number or true or false is one. The file is made where there is none.
    Raises Invalid, and changes nothing, where the result would be no valid configuration or where
    the file cannot be changed line by line.
    """
    try:
        keys = source.parse_path(key)
    except ValueError as error:
        raise Invalid(f"{key}: {error}") from None
    text = ""
    if path.exists():
        source.read(path)
        text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        text += f"apiVersion: {API_VERSION}\n"
    text = source.edited(text, keys, _scalar(value), str(path))
    check_text(text, str(path), options_model)
    source.write(path, text)


def _scalar(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"true|false|-?\d{1,18}(\.\d{1,9})?", value):
        return json.loads(value) if not re.match(r"-?0\d", value) else value
    return value


_FLAGS = {"nodes[0].name": "--node"}
"""Flags that are not called as the last part of what they set."""


class _Loading:
    def __init__(self, content: Source, options_model: OptionsModel | None) -> None:
        self.content = content
        self.options_model = options_model
        self.tree: dict[str, Any] = content.values
        self.origins = {key: f"{content.name}:{line}" for key, line in content.lines.items() if key}
        self.given: dict[str, str] = {}
        """The name of the flag or variable that gave a path."""
        self.violations: list[Violation] = []

    def run(self, env: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
        self._environment(env)
        for key, value in flags.items():
            if value is not None:
                flag = _FLAGS.get(key) or "--" + key.rpartition(".")[2].replace("_", "-")
                self._overlay(source.parse_path(key), value, flag, f"flag {flag}")
        backends = self._backends()
        config = self._validate(Config, {**self.tree, "backends": ()}, ())
        if config is not None:
            self._tls(config)
            names = [one.name for one in backends]
            for field, words in problems(config.cluster, config.nodes, names):
                self._add(field, words)
        self._unique()
        if self.violations or config is None:
            raise Invalid(violations=self.violations)
        # Validated apart, so that each backend's keys can be told from those of its type.
        object.__setattr__(config, "backends", tuple(backends))
        config._origins.update(self.origins)
        return config

    # Flags and variables.

    def _environment(self, env: Mapping[str, str]) -> None:
        for name in sorted(env):
            if (
                not name.startswith(PREFIX)
                or name.startswith(_INTERNAL)
                or name == CONFIG_VARIABLE
                or _SERVICE_LINK.fullmatch(name)
            ):
                continue
            parts = name.removeprefix(PREFIX).lower().split("__")
            if "" in parts:
                self._add("", "an empty part between underscores", name)
                continue
            path = tuple(int(p) if re.fullmatch(r"[0-9]{1,6}", p) else p for p in parts)
            known = {key.lower(): key for key in ("apiVersion",)}
            path = (known.get(str(path[0]), path[0]), *path[1:])
            if path[0] not in _keys(Config):
                near = nearest(str(path[0]), _keys(Config))
                hint = f'; did you mean "{PREFIX}{near.upper()}"?' if near else ""
                self._add("", f"unknown variable{hint}", name)
                continue
            value: Any = env[name]
            if value.lstrip().startswith(("[", "{")):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError) as error:
                    self._add(join(path), f"not valid JSON: {error}", name)
                    continue
            self._overlay(path, value, name, name)

    def _overlay(self, path: Path_, value: Any, name: str, origin: str) -> None:
        node: Any = self.tree
        for index, part in enumerate(path):
            last = index == len(path) - 1
            below: Any = value if last else [] if isinstance(path[index + 1], int) else {}
            if isinstance(node, dict) and isinstance(part, str):
                if last or node.get(part) is None:
                    node[part] = below
                node = node[part]
            elif isinstance(node, list) and isinstance(part, int) and part <= len(node):
                if part == len(node):
                    node.append(below)
                elif last:
                    node[part] = below
                node = node[part]
            else:
                where = join(path[:index]) or "the top"
                self._add(join(path), f"{where} has no such place", name)
                return
        text = join(path)
        for old in [o for o in self.origins if o == text or o.startswith((f"{text}.", f"{text}["))]:
            del self.origins[old]
        self.origins |= {leaf: origin for leaf, _ in leaves(value, text)}
        self.given[text] = name

    # Checks.

    def _backends(self) -> list[BackendConfig]:
        raw = self.tree.get("backends")
        if raw is None:
            return []
        if not isinstance(raw, list):
            self._add("backends", f"found {shown(raw)}; allowed: a list of backends")
            return []
        out = []
        for index, item in enumerate(raw):
            if not isinstance(item, dict):
                words = f"found {shown(item)}; allowed: a mapping with name and type"
                self._add(f"backends[{index}]", words)
            elif (backend := self._backend(item, ("backends", index))) is not None:
                out.append(backend)
        return out

    def _backend(self, item: dict[str, Any], path: Path_) -> BackendConfig | None:
        own = {key: value for key, value in item.items() if key in _OWN_KEYS}
        rest = {key: value for key, value in item.items() if key not in _OWN_KEYS}
        backend = self._validate(BackendConfig, own, path)
        type_ = item.get("type")
        options: Any = rest
        if self.options_model is not None and isinstance(type_, str):
            try:
                model = self.options_model(type_)
            except BridgeError as error:
                self._add(join((*path, "type")), error.message)
                return None
            options = self._options(model, rest, path)
        elif self.options_model is not None:
            # Whose keys the rest are is not known: only those near our own are surely slips.
            for key in rest:
                if near := nearest(key, _OWN_KEYS):
                    words = f'unknown key; did you mean "{near}"?'
                    self._add(join((*path, key)), words)
        return None if backend is None else backend.with_options(options)

    def _options(
        self, model: type[BaseModel] | None, rest: dict[str, Any], path: Path_
    ) -> BaseModel | None:
        known = _keys(model) if model is not None else ()
        lax = model is not None and model.model_config.get("extra") == "allow"
        for key in list(rest):
            if key not in known and not lax:
                self._unknown((*path, key), (*_OWN_KEYS, *known))
                del rest[key]
        return None if model is None else self._validate(model, rest, path)

    def _validate(self, model: type[_Model], values: Any, path: Path_) -> _Model | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self._report(model, error, path)
            return None

    def _report(self, model: type[BaseModel], error: ValidationError, path: Path_) -> None:
        for one in error.errors(include_url=False):
            where = (*path, *one["loc"])
            if one["type"] == "extra_forbidden":
                self._unknown(where, _keys(_at(model, one["loc"][:-1])))
                continue
            self._add(join(where), _words(one, secret=bool(_SECRETISH.search(str(where[-1:])))))

    def _unknown(self, path: Path_, known: Iterable[str]) -> None:
        names = list(known)
        near = nearest(str(path[-1]), names)
        hint = f'; did you mean "{near}"?' if near else f"; allowed: {', '.join(sorted(names))}"
        self._add(join(path), f"unknown key{hint}")

    def _tls(self, config: Config) -> None:
        listen, tls = config.provider.listen, config.provider.tls
        if listen is not None and tls is None and not is_local(listen):
            words = f"required, because other hosts can reach {listen} (provider.listen)"
            self._add("provider.tls", words)

    def _unique(self) -> None:
        seen: dict[str, str] = {}
        raw = self.tree.get("backends")
        for index, item in enumerate(raw if isinstance(raw, list) else ()):
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str):
                where = f"backends[{index}].name"
                if name in seen:
                    self._add(where, f'found "{name}", which is {seen[name]} already')
                seen.setdefault(name, where)

    def _add(self, field: str, words: str, name: str | None = None) -> None:
        self.violations.append(Violation(field, words, name or self._source(field)))

    def _source(self, field: str) -> str:
        """Who said it: what gave the value itself or the nearest thing that holds it."""
        while field:
            if field in self.given:
                return self.given[field]
            if field in self.content.lines:
                return self.content.name
            field = re.sub(r"(\.[^.\[\]]+|\[\d+\]|^[^.\[\]]+)$", "", field)
        return self.content.name


def _keys(model: type[BaseModel] | None) -> tuple[str, ...]:
    if model is None:
        return ()
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that an error's place is in; None where that cannot be told."""
    for part in loc:
        by_name = {f.alias or name: f for name, f in model.model_fields.items()}
        found = by_name.get(str(part))
        inner = [one for one in _types(found.annotation) if found] if found else []
        if len(inner) != 1:
            return None
        model = inner[0]
    return model


def _types(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for arg in getattr(annotation, "__args__", ()) for one in _types(arg)]


def _words(error: Any, *, secret: bool) -> str:
    """One pydantic error in the words of all our messages: what was found, what is allowed."""
    if error["type"] == "missing":
        return "missing; this key is required"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = str(error["msg"])
    found = shown(error["input"], secret=secret)
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"found {found}; allowed: a mapping"
    if message.startswith("Input should be "):
        allowed = message.removeprefix("Input should be ")
        allowed = re.sub(r", (unable to parse|got a number).*", "", allowed)
        return f"found {found}; allowed: {allowed}"
    return f"found {found}: {message[:1].lower()}{message[1:]}"
