from __future__ import annotations

import contextlib
import json
import os
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from bridge.config import (
    BackendConfig,
    Config,
    SecretRef,
    check_text,
    duration,
    find,
    load,
    money,
    schema,
    set_value,
)
from bridge.errors import Invalid


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1


class Options(BaseModel):
    root: str = "/somewhere"
    """Where its files are."""
    token: SecretRef | None = None
    inner: Inner = Inner()


def options_model(type_: str) -> type[BaseModel] | None:
    if type_ not in ("process", "null"):
        raise Invalid(f'unknown backend type "{type_}"; allowed: null, process')
    return Options if type_ == "process" else None


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "podbridge.yaml"
    path.write_text(text)
    return path


def read(path: Path | None = None, env: Any = None, flags: Any = None) -> Config:
    return load(path, env or {}, flags or {}, options_model=options_model)


def messages(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        check_text(text, "podbridge.yaml", options_model)
    return [str(violation) for violation in caught.value.violations]


def test_defaults_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, {"HOME": str(tmp_path)}, {})
    assert (config.max_run, config.provider.listen, config.backends) == (86400.0, None, ())
    assert set(config.origins().values()) == {"default"}


def test_a_whole_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """apiVersion: podbridge.io/v1
max_run: 1h30m
provider:
  listen: 0.0.0.0:7443
  tls: {ca: ca.pem, cert: cert.pem, key: "env:KEY"}
backends:
- name: local
  type: process
  max_pods: 50
  cpu: 7500m
  memory: 2Gi
  root: /data
- {name: nothing, type: null}
""",
    )
    config = read(path)
    assert (config.max_run, config.provider.listen) == (5400, "0.0.0.0:7443")
    assert config.provider.tls is not None
    assert config.provider.tls.key.text({"KEY": "pem\n"}) == "pem"
    local = config.backend("local")
    assert local.limits == {"pods": 50, "cpu": 7500, "memory": 2 << 30}
    assert local.options == Options(root="/data")
    # What YAML reads as nothing is a type's name here.
    assert config.backend("nothing").type == "null"
    assert config.backend("nothing").options == {}
    assert config.backend("nothing").limits == {"pods": 110}
    with pytest.raises(KeyError):
        config.backend("other")


def test_flag_before_variable_before_file_before_default(tmp_path: Path) -> None:
    listed = "backends:\n- {name: file, type: process}\n"
    path = written(tmp_path, f"max_run: 1s\nprovider: {{listen: 'localhost:1'}}\n{listed}")
    env = {"PODBRIDGE_MAX_RUN": "2s", "PODBRIDGE_PROVIDER__LISTEN": "localhost:2"}
    config = read(path, env, {"provider.listen": "localhost:3", "max_run": None})
    assert (config.max_run, config.provider.listen) == (2.0, "localhost:3")
    assert config.backends[0].name == "file"
    origins = config.origins()
    assert origins["backends[0].name"] == f"{path}:4"
    assert origins["max_run"] == "PODBRIDGE_MAX_RUN"
    assert origins["provider.listen"] == "flag --listen"
    assert origins["backends[0].max_pods"] == "default"


def test_nested_variables_and_lists(tmp_path: Path) -> None:
    path = written(tmp_path, "backends:\n- {name: a, type: process, max_pods: 3}\n")
    env = {
        "PODBRIDGE_BACKENDS__0__MAX_PODS": "9",
        "PODBRIDGE_BACKENDS__1": '{"name": "b", "type": "null"}',
        "PODBRIDGE_PROVIDER__LISTEN": "localhost:1",
    }
    config = read(path, env)
    assert [(one.name, one.max_pods) for one in config.backends] == [("a", 9), ("b", 110)]
    assert config.provider.address({}) == "localhost:1"
    assert config.origins()["backends[1].name"] == "PODBRIDGE_BACKENDS__1"
    assert config.origins()["backends[1].max_pods"] == "default"


def test_service_links_of_kubernetes_are_no_configuration() -> None:
    env = {
        "PODBRIDGE_SERVICE_HOST": "10.0.0.1",
        "PODBRIDGE_SERVICE_PORT_GRPC": "7443",
        "PODBRIDGE_PROVIDER_PORT": "tcp://10.0.0.1:7443",
        "PODBRIDGE_PORT_7443_TCP_ADDR": "10.0.0.1",
        "PODBRIDGE__KEEPER": "1",
    }
    assert set(load(Path(os.devnull), env, {}).origins().values()) == {"default"}


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    user = home / ".config" / "podbridge" / "config.yaml"
    user.parent.mkdir(parents=True)
    here.mkdir()
    env = {"HOME": str(home)}
    assert find(env, here) is None
    user.write_text("max_run: 7s\n")
    assert find(env, here) == user
    other = tmp_path / "xdg" / "podbridge" / "config.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("")
    assert find({**env, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}, here) == other
    (here / "podbridge.yaml").write_text("")
    assert find(env, here) == here / "podbridge.yaml"
    assert read(None, {"PODBRIDGE_CONFIG": str(user)}).max_run == 7


def test_every_mistake_at_once_with_its_path() -> None:
    found = messages(
        """
max_run: 24x
bakends: []
provider: {listn: x, listen: 10.0.0.1:9}
backends:
- {name: a, type: process, inner: {deep: 3}}
- {name: a, type: process, max_podz: 3, cpu: 2GI, rot: /x}
- {type: proces}
- 7
"""
    )
    assert found == [
        'podbridge.yaml: backends[0].inner.deep: unknown key; did you mean "depth"?',
        'podbridge.yaml: backends[1].cpu: found "2GI"; allowed: a number, alone or with one of '
        'n u m k M G T P E Ki Mi Gi Ti Pi Ei, or an exponent ("250m", "0.5", "2Gi", "1e3"); '
        'did you mean "2Gi"?',
        'podbridge.yaml: backends[1].max_podz: unknown key; did you mean "max_pods"?',
        'podbridge.yaml: backends[1].rot: unknown key; did you mean "root"?',
        "podbridge.yaml: backends[2].name: missing; this key is required",
        'podbridge.yaml: backends[2].type: unknown backend type "proces"; allowed: null, process',
        "podbridge.yaml: backends[3]: found integer 7; allowed: a mapping with name and type",
        'podbridge.yaml: max_run: found string "24x"; allowed: a duration ("24h", "90s", '
        '"1h30m") or a number of seconds, above 0',
        'podbridge.yaml: provider.listn: unknown key; did you mean "listen"?',
        'podbridge.yaml: bakends: unknown key; did you mean "backends"?',
        'podbridge.yaml: backends[1].name: found "a", which is backends[0].name already',
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "line 1, column 5"),
        ("- a", "found no mapping at the top"),
        ("max_run: 1s\nmax_run: 2s", "max_run: line 2: this key stands here twice"),
        ("backends: &a [*a]", "nested"),
        ("provider: {listen: 10.0.0.1:99}", "provider.tls: required, because other hosts"),
        ("provider: {listen: nowhere}", 'allowed: "unix:///path" or "host:port"'),
        ("provider: 3", "provider: found integer 3; allowed: a mapping"),
        ("backends: 3", "backends: found integer 3; allowed: a list"),
        ("apiVersion: v2", "apiVersion: found string \"v2\"; allowed: 'podbridge.io/v1'"),
        ("backends: [{name: Not_A, type: x}]", 'name: found string "Not_A"; allowed: at most 63'),
        (
            "backends: [{name: a, type: null, max_pods: 0}]",
            "found integer 0; allowed: greater than or equal to 1",
        ),
        ("max_run: 0", "above 0"),
        ("max_run: .nan", "above 0"),
        ("max_run: 99999999h", "ten years"),
    ],
)
def test_bad_files(text: str, words: str) -> None:
    assert any(words in message for message in messages(text)), messages(text)


def test_mistakes_of_flags_and_variables_name_them() -> None:
    with pytest.raises(Invalid) as caught:
        read(
            Path(os.devnull),
            {"PODBRIDGE_MAXRUN": "1", "PODBRIDGE_MAX_RUN": "x"},
            {"provider.listen": "_"},
        )
    found = [str(violation) for violation in caught.value.violations]
    assert found[0] == 'PODBRIDGE_MAXRUN: unknown variable; did you mean "PODBRIDGE_MAX_RUN"?'
    assert any(one.startswith("PODBRIDGE_MAX_RUN: max_run: found") for one in found)
    assert any(one.startswith("--listen: provider.listen: found") for one in found)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(Invalid, match="cannot be read"):
            read(path)
    (tmp_path / "bytes.yaml").write_bytes(b"max_run: \xff\n")
    with pytest.raises(Invalid, match="not UTF-8"):
        read(tmp_path / "bytes.yaml")
    (tmp_path / "bomb.yaml").write_text(
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [{','.join(['*' + m] * 9)}]\n"
            for m, n in zip("abcdef", "bcdefg", strict=True)
        )
    )
    with pytest.raises(Invalid, match="too many"):
        read(tmp_path / "bomb.yaml")


def test_a_secret_is_a_reference_and_never_shown(tmp_path: Path) -> None:
    tls = "{{ca: a, cert: b, key: {}}}"
    found = messages(f"provider: {{listen: localhost:1, tls: {tls.format('hunter2')}}}")
    found += messages("backends: [{name: a, type: process, token: hunter2}]")
    assert len(found) == 2
    assert not any("hunter2" in message for message in found)
    assert all("allowed: env:NAME or file:PATH" in message for message in found)
    secret = tmp_path / "secret"
    secret.write_text("value\n")
    assert SecretRef.parse(f"file:{secret}").text({}) == "value"
    with pytest.raises(Invalid, match="env:NOPE: this variable is not set"):
        SecretRef.parse("env:NOPE").read({})
    with pytest.raises(Invalid, match="No such file"):
        SecretRef.parse("file:/nonexistent/x").read({})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("24h", 86400),
        ("90s", 90),
        ("1h30m", 5400),
        (90, 90),
        ("90", 90),
        ("1.5m", 90),
        ("5ms", 0.005),
    ],
)
def test_durations(given: object, seconds: float) -> None:
    assert duration(given) == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["", "h", "1d", "-1s", "1 h", True, None, [], "1e3", "0s", "٣s"])
def test_no_durations(given: object) -> None:
    with pytest.raises(ValueError, match="allowed"):
        duration(given)


def test_the_schema_knows_every_key_and_its_words() -> None:
    found = schema(["null", "process"], options_model)
    assert found["additionalProperties"] is False
    assert "works without us" in found["properties"]["max_run"]["description"]
    backend = found["$defs"]["BackendConfig"]
    assert backend["properties"]["type"]["enum"] == ["null", "process"]
    process = next(
        one["then"]
        for one in backend["allOf"]
        if one["if"]["properties"]["type"]["const"] == "process"
    )
    assert process["properties"]["root"]["description"] == "Where its files are."
    assert process["properties"]["inner"]["$ref"] == "#/$defs/process.Inner" or (
        "#/$defs/process.Inner" in json.dumps(process["properties"]["inner"])
    )
    assert "process.Inner" in found["$defs"]
    every = {name for model in (Config, BackendConfig) for name in model.model_fields}
    described = found["properties"] | backend["properties"]
    assert every - {"api_version"} <= set(described)
    assert all("description" in one for one in described.values())


TEXT = """apiVersion: podbridge.io/v1
# Why: a test.
max_run: 24h   # a day
provider:  # the other half
  listen: unix:///x
backends:
  - name: local   # mine
    type: process

  # the second
  - {name: b, type: null}
"""


def test_set_value_leaves_comments_alone(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    path.chmod(0o640)
    set_value(path, "max_run", "90s", options_model=options_model)
    set_value(path, "backends[0].max_pods", "7", options_model=options_model)
    set_value(path, "backends[0].root", "null", options_model=options_model)
    assert path.read_text() == TEXT.replace("24h", "90s").replace(
        "type: process\n", "type: process\n    max_pods: 7\n    root: 'null'\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    config = read(path)
    assert (config.max_run, config.backends[0].max_pods) == (90.0, 7)
    assert config.backends[0].options.root == "null"


def test_set_value_makes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    set_value(path, "provider.listen", "unix:///run/x.sock")
    assert path.read_text() == (
        "apiVersion: podbridge.io/v1\nprovider:\n  listen: unix:///run/x.sock\n"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_run", "soon"),
        ("max_rum", "1h"),
        ("backends[1].max_pods", "3"),
        ("backends[7].max_pods", "3"),
        ("backends", "x"),
        ("max_run.x", "1"),
        ("..", "1"),
        ("", "1"),
        ("provider.tls", "x"),
    ],
)
def test_set_value_refuses_and_changes_nothing(tmp_path: Path, key: str, value: str) -> None:
    path = written(tmp_path, TEXT)
    with pytest.raises(Invalid):
        set_value(path, key, value, options_model=options_model)
    assert path.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [path]


_plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["process", "null", "a", "24h", "env:X", "unix:///x", "1.1.1.1:9"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *Config.model_fields,
                    *BackendConfig.model_fields,
                    *["apiVersion", "listen", "tls", "key", "root", "token", "inner", "depth", "x"],
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.dictionaries(st.sampled_from([*Config.model_fields, "x"]), _plain, max_size=5),
    env=st.dictionaries(
        st.sampled_from(["MAX_RUN", "BACKENDS__0__TYPE", "PROVIDER", "PROVIDER__TLS__CA"]),
        st.text(max_size=10) | st.just('{"a": [1]}'),
        max_size=3,
    ),
)
@example(values={"backends": [{"name": 3, "type": []}]}, env={"BACKENDS__0__TYPE": "["})
def test_a_bad_configuration_is_never_a_traceback(values: dict[str, Any], env: Any) -> None:
    from bridge.config.loading import _Loading
    from bridge.config.source import parse

    text = yaml.safe_dump(values)
    variables = {f"PODBRIDGE_{name}": value for name, value in env.items()}
    try:
        config = _Loading(parse(text, "f"), options_model).run(variables, {})
    except Invalid:
        return
    assert config.values().keys() == config.origins().keys()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#\n\t ,0x.%@`~\x00é<?", max_size=40))
def test_bad_yaml_is_never_a_traceback(text: str) -> None:
    with contextlib.suppress(Invalid):
        check_text(text, "f", options_model)


@settings(max_examples=100, deadline=None)
@given(
    key=st.sampled_from(
        ["max_run", "provider.listen", "backends[0].root", "backends[0].inner.depth"]
    ),
    value=st.text(max_size=12),
)
def test_an_edit_is_whole_or_refused(tmp_path_factory: Any, key: str, value: str) -> None:
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_text(TEXT)
    try:
        set_value(path, key, value, options_model=options_model)
    except Invalid:
        assert path.read_text() == TEXT
    else:
        assert all(line in path.read_text() for line in TEXT.splitlines() if line.startswith("#"))
        read(path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10", "10"),
        ("$0.50", "0.50"),
        (0, "0"),
        (2.5, "2.5"),
        (" 7 ", "7"),
        ("0.000001", "0.000001"),
    ],
)
def test_money_is_exact(value: object, expected: str) -> None:
    assert money(value) == Decimal(expected)


@pytest.mark.parametrize(
    "value", ["", "ten", "-1", "1e3", "1,000", "0.0000001", True, None, [], "€5"]
)
def test_what_is_no_money(value: object) -> None:
    with pytest.raises(ValueError, match="allowed: US dollars, 0 or more"):
        money(value)


def test_when_a_run_is_asked_about(tmp_path: Path) -> None:
    assert read(written(tmp_path, "max_run: 1h\n")).confirm_above == Decimal(10)
    config = read(written(tmp_path, "confirm_above: $2.50\n"))
    assert config.confirm_above == Decimal("2.50")
    assert config.to_dict()["confirm_above"] == "2.50"
    wrong = messages("confirm_above: much\n")
    allowed = 'US dollars, 0 or more, with at most 6 decimals ("10", "$0.50")'
    assert wrong == [f'podbridge.yaml: confirm_above: found string "much"; allowed: {allowed}']
