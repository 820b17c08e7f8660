from __future__ import annotations

import base64
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import Invalid
from bridge.local.documents import MAX_DEPTH, read
from bridge.local.manifests import Objects, Raw, admit, load

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: main, image: busybox}]}
"""


def from_text(text: str | bytes) -> Objects:
    content = text.encode() if isinstance(text, str) else text
    return load(["-"], io.BytesIO(content))


def refused(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        from_text(text)
    assert not caught.value.message.startswith("Invalid")
    return [str(violation).removeprefix("standard input") for violation in caught.value.violations]


def pod_with(**container: Any) -> str:
    containers = [{"name": "main", "image": "busybox"} | container]
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
        | {"spec": {"containers": containers}}
    )


# --- where manifests come from -----------------------------------------------------------------


def test_files_directories_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(POD.replace("name: a", "name: b"))
    (tmp_path / "c.json").write_text(json.dumps(yaml.safe_load(POD.replace("name: a", "name: c"))))
    (tmp_path / "readme.md").write_text("not read")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.yaml").write_text("not: read")
    one = tmp_path / "one.txt"
    one.write_text(POD.replace("name: a", "name: one"))
    objects = load([str(tmp_path), str(one), "-"], io.BytesIO(POD.encode()))
    found = [(loaded.obj["metadata"]["name"], loaded.source) for loaded in objects.pods]
    assert found == [
        ("b", str(tmp_path / "b.yaml")),
        ("c", str(tmp_path / "c.json")),
        ("one", str(one)),
        ("a", "standard input"),
    ]
    assert objects.pods[0].key == ("default", "b")
    assert objects.pods[0].obj["spec"]["dnsPolicy"] == "ClusterFirst"


def test_every_problem_of_every_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n---\n")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: b\nc: \xff\n")
    (tmp_path / "none").mkdir()
    names = ["empty.yaml", "bad.yaml", "latin.yaml", "none", "absent.yaml"]
    with pytest.raises(Invalid) as caught:
        load([str(tmp_path / name) for name in names] + ["-", "https://example.com/a.yaml"])
    messages = {Path(v.source).name: v.message for v in caught.value.violations}
    assert messages == {
        "empty.yaml": "is empty: there is no object in it",
        "bad.yaml": "invalid YAML: line 2, column 1: did not find expected node content",
        "latin.yaml": "line 2: found bytes that are not UTF-8",
        "none": "found no *.yaml, *.yml or *.json in the directory",
        "absent.yaml": "cannot be read: No such file or directory",
        "standard input": "there is none",
        "a.yaml": 'found a URL; allowed: a file, a directory or "-" '
        "(curl URL | podbridge run -f -)",
    }


def test_nothing_given() -> None:
    for sources in ([], ["a\0b"]):
        with pytest.raises(Invalid):
            load(sources)


def test_documents_and_lists() -> None:
    item = yaml.safe_load(POD.replace("name: a", "name: b"))
    listed = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [item]}
    objects = from_text(f"---\n{POD}---\n# empty\n---\n{json.dumps(listed)}\n---\n")
    assert [(loaded.source, loaded.line) for loaded in objects.pods] == [
        ("standard input, document 1", 1),
        ("standard input, document 3, items[0]", 8),
    ]


def test_json_documents() -> None:
    first = json.dumps(yaml.safe_load(POD), indent="\t")
    objects = from_text(first + first.replace('"a"', '"b"'))
    assert [loaded.line for loaded in objects.pods] == [1, 15]
    assert refused('{"kind": "Pod", "kind": "Pod"}')[0] == ': duplicate key "kind"'
    assert "invalid YAML: line " in refused('{"kind": "Pod"')[0]


def test_json_errors_for_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(Invalid, match=r"invalid JSON: line 2, column 6"):
        load([str(path)])


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", ": found string; allowed: an object (apiVersion, kind)"),
        ("- a", ": found list; allowed: an object (apiVersion, kind)"),
        (
            "kind: Pod",
            ": apiVersion: missing; this field is required; "
            "kinds allowed: Pod, Job, CronJob, ConfigMap, Secret, List",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment}",
            ": kind: Deployment (apps/v1) is not batch work; "
            "allowed: Pod, Job, CronJob, ConfigMap, Secret, List",
        ),
        (
            "{apiVersion: v1, kind: pods}",
            ": kind: pods (v1) is not batch work; "
            'allowed: Pod, Job, CronJob, ConfigMap, Secret, List; did you mean "Pod"?',
        ),
        (
            "{apiVersion: batch/v1beta1, kind: CronJob}",
            ': apiVersion: found string "batch/v1beta1"; allowed for a CronJob: batch/v1',
        ),
        ("{apiVersion: v1, kind: List, items: 3}", ": items: found integer 3; allowed: list"),
        ("a: 1\na: 2\n", ': line 2: duplicate key "a"; line 1 has it already'),
        ("a: *b\n", ": line 1: the alias *b names no anchor before it"),
        ("a: &b [*b]\n", ": line 1: the alias *b contains itself"),
        (
            "a: !!python/object:os.system x\n",
            ": line 1: unknown tag tag:yaml.org,2002:python/object:os.system",
        ),
        ("? [a]\n: b\n", ": line 1: found a list as a key; allowed: a string"),
        ("a: \x01\n", ": invalid YAML: line 1, column 4: a control character"),
        (
            "a:\n\tb: c\n",
            ": invalid YAML: line 2, column 1: found character that cannot start any token",
        ),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert refused(text)[0] == message


def test_duplicate_objects() -> None:
    assert refused(f"{POD}---\n{POD}") == [
        ", document 2: metadata.name: duplicate object: Pod default/a is in "
        "standard input, document 1 already"
    ]


def test_nothing_to_run() -> None:
    config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"
    assert refused(config) == [": nothing to run: found no Pod, Job or CronJob"]


def test_alias_bombs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "aliases stand for too many values" in refused("\n".join(lines))[0]


def test_aliases_of_long_text() -> None:
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 84)}]\n"
    assert "aliases stand for too much text; allowed: 8 MiB in all" in refused(text)[0]


@pytest.mark.parametrize("opening", ["[", "{a: ", '{"a": '])
def test_deep_nesting(opening: str) -> None:
    text = opening * 5000
    messages = refused(text)
    assert any("nested too deeply" in m or "invalid" in m for m in messages)
    document = json.loads("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))
    assert read(json.dumps(document))[-1].problems == [
        f"nested too deeply; allowed: {MAX_DEPTH} levels"
    ]


# --- what YAML means ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("n", False),
        ("'yes'", "yes"),
        ("~", None),
        ("0644", 420),
        ("0o644", 420),
        ("0x1F", 31),
        ("0b101", 5),
        ("-12", -12),
        ("1_000", 1000),
        ("089", 89),
        ("1.0", 1),
        ("1.5", 1.5),
        ("1e3", 1000),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("1Gi", "1Gi"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("!!str 8080", "8080"),
        ("!!int '8080'", 8080),
        ("!!float 1", 1),
        ("!!binary aGk=", "hi"),
        ("! 8080", "8080"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("{<<: &x {a: 1, b: 2}, b: 3}", {"a": 1, "b": 3}),
        ("{1: a, true: b, 1.5: c}", {"1": "a", "true": "b", "1.5": "c"}),
        ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
    ],
)
def test_yaml_values(text: str, value: Any) -> None:
    (document,) = read(f"value: {text}\n")
    assert document.problems == []
    assert document.value["value"] == value
    assert type(document.value["value"]) is type(value)


@pytest.mark.parametrize("text", ["!!int x", "!!bool 3", "!!binary '*'", "!foo x"])
def test_tags_that_do_not_fit(text: str) -> None:
    assert read(f"value: {text}\n")[0].problems


def test_half_characters_of_json() -> None:
    (document,) = read('{"a": "\\ud800x", "b": "\\ud83d\\ude00"}')
    assert document.value == {"a": "\ufffdx", "b": "\N{GRINNING FACE}"}


def test_numbers_for_strings_and_octal_modes() -> None:
    prefix = ": spec.containers[0].env[0].value: found "
    for value, found in ((8080, "integer 8080"), (True, "boolean true"), (1.5, "number 1.5")):
        text = pod_with(env=[{"name": "A", "value": value}])
        assert refused(text) == [f"{prefix}{found}; allowed: string (put it in quotes)"]
    volumes = "volumes: [{name: v, secret: {secretName: s, optional: true, defaultMode: 0400}}]"
    (loaded,) = from_text(POD.replace("spec: {", f"spec: {{{volumes}, ")).pods
    assert loaded.obj["spec"]["volumes"][0]["secret"]["defaultMode"] == 0o400


# --- what becomes of an object -----------------------------------------------------------------


def test_what_a_server_wrote_is_dropped() -> None:
    stored = yaml.safe_load(POD)
    stored["metadata"] |= {"uid": "u", "resourceVersion": "1", "creationTimestamp": None}
    stored["status"] = {"phase": "Running", "unknown": 1}
    stored["spec"]["volumes"] = [{"name": "kube-api-access-x", "projected": {"sources": []}}]
    mount = {"name": "kube-api-access-x", "mountPath": "/var/run/x"}
    stored["spec"]["containers"][0]["volumeMounts"] = [mount]
    (loaded,) = from_text(json.dumps(stored)).pods
    assert loaded.obj["metadata"] == {"name": "a", "namespace": "default"}
    assert "status" not in loaded.obj
    assert loaded.obj["spec"]["volumes"] == []
    assert loaded.obj["spec"]["containers"][0]["volumeMounts"] == []


def test_generated_names_are_the_same_every_time() -> None:
    text = POD.replace("name: a}", "generateName: a-}")
    both = from_text(f"{text}---\n{text}")
    first, second = (loaded.obj["metadata"]["name"] for loaded in both.pods)
    assert first != second
    assert len(first) == len("a-") + 5
    assert from_text(text).pods[0].obj["metadata"]["name"] == first
    assert both.pods[0].obj["metadata"]["generateName"] == "a-"


def test_string_data_becomes_data() -> None:
    secret = (
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: YQ==, b: YQ==}, "
        "stringData: {b: new}}"
    )
    objects = from_text(f"{POD}---\n{secret}")
    obj = objects.secrets["default", "s"].obj
    assert obj["data"] == {"a": "YQ==", "b": base64.b64encode(b"new").decode()}
    assert "stringData" not in obj
    assert obj["type"] == "Opaque"


def test_extra_keys_join_a_given_secret() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    ref = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    text = pod_with(env=[ref]) + "---\n" + json.dumps(secret | {"stringData": {"other": "x"}})
    assert 'Secret "s" has no key "k"' in refused(text)[0]
    added = Raw(secret | {"stringData": {"k": "v"}}, "--secret")
    objects = load(["-"], io.BytesIO(text.encode()), extra=[added])
    assert set(objects.secrets["default", "s"].obj["data"]) == {"other", "k"}


def test_admit_and_iteration() -> None:
    objects = admit([Raw(yaml.safe_load(POD), "podbridge run a")])
    assert [loaded.source for loaded in objects] == ["podbridge run a"]


# --- references --------------------------------------------------------------------------------

CONFIG = "\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {key: x}}\n"


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (
            {"envFrom": [{"configMapRef": {"name": "setting"}}]},
            'envFrom[0].configMapRef: found no ConfigMap "setting" in namespace default among the '
            'manifests; did you mean "settings"?',
        ),
        (
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "zzz"}},
                    }
                ]
            },
            'env[0].valueFrom.configMapKeyRef: ConfigMap "settings" has no key "zzz"; '
            "there is: key",
        ),
        (
            {"envFrom": [{"secretRef": {"name": "zzz"}}]},
            'envFrom[0].secretRef: found no Secret "zzz" in namespace default among the manifests',
        ),
    ],
)
def test_missing_references(container: dict[str, Any], message: str) -> None:
    found = refused(pod_with(**container) + CONFIG)
    assert found == [f", document 1: spec.containers[0].{message}"]


def test_optional_references_and_pull_secrets_may_be_missing() -> None:
    ref = {"name": "x", "key": "k", "optional": True}
    text = pod_with(
        env=[{"name": "A", "valueFrom": {"secretKeyRef": ref}}],
        envFrom=[{"configMapRef": {"name": "x", "optional": True}}],
    )
    obj = yaml.safe_load(text)
    obj["spec"]["imagePullSecrets"] = [{"name": "x"}]
    assert from_text(json.dumps(obj)).pods


def test_volumes_and_their_keys() -> None:
    obj = yaml.safe_load(POD)
    items = [{"key": "absent", "path": "p"}]
    obj["spec"]["volumes"] = [
        {"name": "a", "configMap": {"name": "settings", "items": items}},
        {"name": "b", "secret": {"secretName": "zzz"}},
        {
            "name": "c",
            "projected": {"sources": [{"configMap": {"name": "settings", "items": items}}]},
        },
    ]
    found = refused(json.dumps(obj) + CONFIG)
    assert [message.split(": ")[1] for message in found] == [
        "spec.volumes[0].configMap.items[0]",
        "spec.volumes[1].secret",
        "spec.volumes[2].projected.sources[0].configMap.items[0]",
    ]


def test_a_broken_object_is_not_called_missing_too() -> None:
    text = pod_with(envFrom=[{"configMapRef": {"name": "settings"}}])
    found = refused(text + CONFIG.replace("key: x", "key: 1"))
    assert found == [", document 2: data[key]: found integer 1; allowed: string (put it in quotes)"]


def test_secrets_stay_out_of_messages() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
    for rest in ("data: {a: hunter2!}", "stringData: {a: [hunter2]}", "data: hunter2", "type: 3"):
        assert not any("hunter2" in message for message in refused(f"{secret}{rest}\n"))
    assert not any("hunter2" in message for message in refused("hunter2"))


# --- whatever comes ----------------------------------------------------------------------------

GOOD: list[dict[str, Any]] = [
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c", "labels": {"a": "b"}},
        "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {
                "spec": {
                    "completions": 3,
                    "completionMode": "Indexed",
                    "backoffLimitPerIndex": 1,
                    "podFailurePolicy": {
                        "rules": [
                            {
                                "action": "FailIndex",
                                "onExitCodes": {"operator": "In", "values": [3]},
                            }
                        ]
                    },
                    "successPolicy": {"rules": [{"succeededIndexes": "0-1"}]},
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "resources": {"limits": {"cpu": "1"}},
                            "tolerations": [{"operator": "Exists"}],
                            "containers": [
                                {
                                    "name": "main",
                                    "image": "busybox",
                                    "command": ["true"],
                                    "env": [
                                        {"name": "A", "value": "1"},
                                        {
                                            "name": "B",
                                            "valueFrom": {
                                                "resourceFieldRef": {"resource": "limits.cpu"}
                                            },
                                        },
                                        {
                                            "name": "C",
                                            "valueFrom": {
                                                "configMapKeyRef": {"name": "m", "key": "k"}
                                            },
                                        },
                                    ],
                                    "resources": {
                                        "limits": {"cpu": "1", "memory": "1Gi"},
                                        "requests": {"cpu": "500m"},
                                    },
                                    "ports": [{"containerPort": 80}],
                                    "livenessProbe": {"httpGet": {"port": 80}},
                                    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                                }
                            ],
                            "volumes": [
                                {"name": "v", "configMap": {"name": "m"}},
                                {
                                    "name": "p",
                                    "projected": {
                                        "sources": [
                                            {"secret": {"name": "s"}},
                                            {"downwardAPI": {"items": []}},
                                        ]
                                    },
                                },
                            ],
                        }
                    },
                }
            },
        },
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}},
]

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["a/b", "..", "-", "1e99", "0", "Never", "$(A)", "*", "@", "1-", "x" * 300]),
    st.recursive(st.just({}), lambda inner: st.lists(inner, max_size=2), max_leaves=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(value, key) for key in value] + [p for v in value.values() for p in _places(v)]
    if isinstance(value, list):
        return [(value, i) for i in range(len(value))] + [p for v in value for p in _places(v)]
    return []


@st.composite
def mutated(draw: st.DrawFn) -> list[Any]:
    objects = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(objects)
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["drop", "replace", "rename", "wrap", "repeat"]))
        if how == "drop":
            del holder[key]
        elif how == "replace":
            holder[key] = draw(ODD)
        elif how == "wrap":
            holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}]))
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(st.text(max_size=6))] = holder.pop(key)
        elif how == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    return objects


def test_the_seed_of_the_mutations_is_good() -> None:
    assert len(list(from_text("\n".join(map(json.dumps, GOOD))))) == len(GOOD)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(), st.booleans())
def test_only_invalid_or_success(objects: list[Any], as_yaml: bool) -> None:
    if as_yaml:
        text = yaml.safe_dump_all(objects, allow_unicode=True)
    else:
        text = "\n".join(map(json.dumps, objects))
    _try(text.encode("utf-8", "replace"))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text("{}[]:,-&*!|>'\"%@` \n\tab1#?<", max_size=60).map(str.encode),
    )
)
def test_any_bytes(content: bytes) -> None:
    _try(content)


def _try(content: bytes) -> None:
    found: tuple[Any, ...] = ("loaded",)
    try:
        load(["-"], io.BytesIO(content))
    except Invalid as error:
        found = error.violations
    assert found


def test_all_mistakes_of_a_manifest_are_told_at_once() -> None:
    text = """\
apiVersion: batch/v1beta1
kind: Job
metadata: {name: Bad_Name, lables: {a: b}}
spec:
  template:
    spec:
      restartPolcy: Never
      containers:
      - {name: Main, image: busybox, ports: [{containerPort: "80"}]}
      - {image: busybox, imagePullPolicy: Sometimes}
"""
    told = [line.split(": ")[1] for line in refused(text)]
    pod = "spec.template.spec"
    assert told == [
        "apiVersion",
        "metadata.lables",
        f"{pod}.restartPolcy",
        f"{pod}.containers[0].ports[0].containerPort",
        f"{pod}.containers[1].name",
        "metadata.name",
        f"{pod}.containers[0].name",
        f"{pod}.containers[1].imagePullPolicy",
    ]


def test_what_a_misspelt_field_was_meant_to_be_is_not_missed_besides() -> None:
    text = """\
apiVersion: batch/v1
kind: Job
metadata: {name: a}
spec:
  template:
    spec:
      restartPolcy: Never
      containers: [{name: main, image: b, volumeMounts: [{name: v, mountPath: /a}]}]
"""
    first, second = refused(text)
    assert "restartPolcy: unknown field" in first
    assert "volumeMounts[0].name" in second
