"""Payloads that are damaged, and records that are forged: refused with a reason, never a hang."""

from __future__ import annotations

import hmac
import json
import subprocess
import zlib
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helper_kit import BASE, IDENTITY, KEY, Make, Pod, container, workload
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import Invalid, NotFound
from bridge.helper.payload import VARIABLE, Settings, encode, run_payload, tree, watch_payload
from bridge.helper.record import LONGEST, parse, read
from bridge.workload import EnvVar, Exit, File, Files, Notice, Role

LINE = 120
"""Characters of a piece in these tests: a payload has several."""
SECRET = "s3cr3t-of-the-pod"


def call(program: Path, verb: str, variables: dict[str, str], *more: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [program, verb, *more],
        env={**BASE, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert SECRET.encode() not in done.stdout + done.stderr
    return done.returncode, done.stderr


def a_payload(folder: str = "/nowhere/that/is") -> dict[str, object]:
    """Of a run that a sound helper begins, and that then cannot go on."""
    one = container("m", "true", env=(EnvVar("S", SECRET, secret=True),))
    return run_payload(workload(one), "m", Settings(KEY, folder))


def pieces() -> dict[str, str]:
    return dict(encode(a_payload("/proc/no"), LINE))


def test_pieces_are_as_short_as_asked_for() -> None:
    made = pieces()
    assert len(made) > 3
    assert all(len(value) <= LINE for value in made.values())
    packed = b"".join(b64decode(made[f"{VARIABLE}{at}"].split(".")[4]) for at in range(len(made)))
    assert json.loads(zlib.decompress(packed)) == a_payload("/proc/no")


def test_what_no_helper_can_run_is_refused() -> None:
    with pytest.raises(Invalid, match="more than 16777216"):
        encode({"x": "y" * (1 << 24)})
    pod = workload(container("m", ""), container("e", "", Role.EPHEMERAL))
    with pytest.raises(Invalid):
        run_payload(pod, "e", Settings(KEY))
    with pytest.raises(KeyError):
        run_payload(pod, "none", Settings(KEY))
    with pytest.raises(ValueError, match="shorter"):
        watch_payload(pod, Settings(b"short"))
    assert "x" * 32 not in repr(Settings(b"x" * 32))


def test_a_volume_below_a_sub_path() -> None:
    volume = Files("v", (File("a/b", b"1"), File("a/c/d", b"2", 0o600), File("ab", b"3")))
    assert tree(volume, "/r", "a").files == (("b", 0o644, b"1"), ("c/d", 0o600, b"2"))
    assert tree(volume, "/r/f", "a/b").root == "/r"
    assert tree(volume, "/r/f", "a/b").files == (("f", 0o644, b"1"),)
    assert tree(volume, "/f", "ab", fs_group=7).files == (("f", 0o644, b"3"),)
    assert tree(volume, "/r", "none").files == ()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_payload_has_its_own_exit_code(program: Path, data: st.DataObject) -> None:
    made = pieces()
    name = data.draw(st.sampled_from(sorted(made)))
    at = data.draw(st.integers(0, len(made[name]) - 1))
    text = made[name]
    match data.draw(st.sampled_from(["gone", "cut", "other", "more", "twice", "another's"])):
        case "gone":
            del made[name]
        case "cut":
            made[name] = text[:at]
        case "other":
            other = data.draw(st.characters(codec="ascii", exclude_characters="\0"))
            if other == text[at]:
                return
            made[name] = text[:at] + other + text[at + 1 :]
        case "more":
            made[name] = text + data.draw(st.text("Ab1+/=.", min_size=1, max_size=20))
        case "twice":
            made[f"{VARIABLE}99"] = text
        case _:
            made[name] = encode({"other": "x" * 900}, LINE)[f"{VARIABLE}0"]
    code, words = call(program, "run", made)
    assert (code, words[:18]) == (121, b"podbridge-helper: "), words


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_payload_that_makes_no_sense(program: Path, data: st.DataObject) -> None:
    """Sound by its digest: whoever forged it could make one."""
    payload: dict[str, Any] = json.loads(json.dumps(a_payload("/proc/no")))
    place = data.draw(st.sampled_from([payload, payload["pod"], payload["container"]]))
    name = data.draw(st.sampled_from(sorted(place)))
    strange = st.sampled_from(
        [None, -1, "x", "../x", [1], [["A"]], {"y": 1}, [{"name": "../x"}], {}]
    )
    place[name] = data.draw(strange)
    code, words = call(program, "run", dict(encode(payload)))
    # What is as good as before ends where its folder cannot be made.
    assert code in (121, 122), words
    assert b"podbridge-helper: " in words
    assert b"goroutine" not in words


@pytest.mark.slow
def test_payloads_of_another_kind_version_or_file(program: Path, tmp_path: Path) -> None:
    made = pieces()
    for changed, words in (
        ({name: f"1{value[1:]}" for name, value in made.items()}, b"not of version 2"),
        ({**made, f"{VARIABLE}0": "nonsense"}, b"has 1 parts, not 5"),
        (dict(encode({"unknown": 1})), b'unknown field "unknown"'),
        ({}, b"there is no payload"),
    ):
        code, said = call(program, "run", changed)
        assert code == 121
        assert words in said
    assert call(program, "watch", made)[0] == 121
    assert b"is for" in call(program, "watch", made)[1]
    code, said = call(program, "run", {}, "--payload", str(tmp_path / "none"))
    assert (code, b"no such file or directory" in said) == (121, True)
    (tmp_path / "payload").write_text("\n".join(made.values()))
    code, said = call(program, "run", {}, "--payload", str(tmp_path / "payload"))
    assert (code, b"cannot make" in said) == (122, True)
    assert not (tmp_path / "payload").exists()


@pytest.mark.slow
def test_files_that_lead_elsewhere_are_refused(make: Make, tmp_path: Path) -> None:
    from bridge.helper.payload import Tree

    pod = make(container("m", "true"))
    for path in ("../x", "/x", "a/../../x", "", ".", "a//b"):
        trees = [Tree(str(tmp_path / "v"), ((path, 0o644, b""),))]
        code, words = call(
            pod.program, "install", dict(encode(pod.payload("install", trees=trees)))
        )
        assert (code, b"is no path of a file" in words) == (121, True), words


def forged(text: bytes, key: bytes, mark: bytes = b"0123456789ab") -> bytes:
    packed = zlib.compress(text)
    seal = hmac.new(key, b"podbridge record 1\n" + mark + b"\n" + packed, sha256).hexdigest()
    head = b"podbridge-record/1 " + mark
    return b"%s 1/1 %s\n%s seal %s\n" % (head, b64encode(packed), head, seal.encode())


GOOD = json.dumps(
    {
        "uid": IDENTITY.uid, "attempt": 2, "by": "watch", "at": 1.0, "failed": False,
        "containers": [],
    }
).encode()  # fmt: skip


def test_a_record_among_other_things() -> None:
    log = b"2026-01-01T00:00:00Z some line\n" + forged(GOOD, KEY).replace(
        b"\n", b"\n2026-01-01T00:00:01Z ", 1
    )
    assert read(log, KEY, IDENTITY).by == "watch"
    assert read(log + forged(GOOD, b"x" * 32) + b"more", KEY, IDENTITY).by == "watch"
    for wrong in (
        b"",
        forged(GOOD, b"x" * 32),
        forged(GOOD.replace(b"uid-1", b"uid-2"), KEY),
        forged(GOOD.replace(b'"attempt": 2', b'"attempt": 1'), KEY),
        forged(GOOD, KEY).splitlines()[1],
        forged(GOOD, KEY).replace(b"1/1", b"1/2"),
    ):
        with pytest.raises(NotFound):
            read(wrong, KEY, IDENTITY)
    for strange in (b"[]", b"{}", b"not json", GOOD.replace(b"[]", b"[1]"), b"{" * 100000):
        with pytest.raises(Invalid):
            read(forged(strange, KEY), KEY, IDENTITY)


@given(st.binary(max_size=400), st.integers(0, 300), st.binary(max_size=3))
def test_any_log_is_read_without_harm(junk: bytes, at: int, more: bytes) -> None:
    sound = forged(GOOD, KEY)
    damaged = sound[:at] + more + sound[at + len(more) :]
    for log in (junk, junk + damaged + junk):
        try:
            read(log, KEY, IDENTITY)
        except NotFound:
            continue
        assert read(log, KEY, IDENTITY).at == 1.0


@pytest.mark.slow
def test_a_pods_own_output_forges_nothing(make: Make, tmp_path: Path) -> None:
    lie = tmp_path / "lie"
    said = json.loads(GOOD)
    said["containers"] = [{"name": "m", "state": "ended", "restart": 0}]
    lie.write_bytes(forged(json.dumps(said).encode(), b"guess" * 8))
    # It writes one, and signs its neighbour's state as well as it can.
    state = tmp_path / "podbridge" / "state"
    script = f'cat {lie}; echo \'{"0" * 64} {{"name":"n","final":true}}\' > {state}/n; exit 1'
    pod = make(container("m", script), container("n", "sleep 0.3; exit 2"), record=True)
    pod.all()
    record = pod.end()
    codes = [one.state.code for one in record.containers if isinstance(one.state, Exit)]
    assert codes == [1, 2]
    out, _ = pod.join("m", 1)
    assert out.startswith(lie.read_bytes())
    assert [one.name for one in pod.record(out).containers] == ["m"]
    with pytest.raises(NotFound):
        pod.record(lie.read_bytes())


@pytest.mark.slow
def test_a_record_is_never_longer_than_the_shortest_log(make: Make, tmp_path: Path) -> None:
    names = [f"c{at}" for at in range(8)]
    message = "tr -dc 'A-Za-z0-9!-/:-@[-`{-~' < /dev/urandom | head -c 4096 > "
    pod: Pod = make(
        *(
            container(
                name, f"{message}{tmp_path}/{name}; exit 1",
                termination_message_path=str(tmp_path / name),
            )
            for name in names
        )
    )  # fmt: skip
    pod.all()
    out, _ = pod.join("watch", 0)
    assert len(out) <= LONGEST
    record = pod.record(out)
    messages = [one.state.message for one in record.containers if isinstance(one.state, Exit)]
    assert all(len(one) > 1000 for one in messages)
    assert sum(map(len, messages)) <= 12 * 1024


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", "1e300", "null", '"x"'])
def test_times_that_cannot_be_are_refused(number: str) -> None:
    state = {"name": "m", "state": "ended", "restart": 1, "started": False, "ready": False}
    exit_ = {"code": 1, "reason": "Error", "finished_at": 5.0, "started_at": 4.0}
    notice = {"at": 5.0, "reason": "Killing", "message": "words"}
    whole = {**state, "exit": exit_, "backoff": 10, "notices": [notice]}
    record = {"uid": IDENTITY.uid, "attempt": IDENTITY.attempt, "by": "watch", "at": 6.0}
    text = json.dumps({**record, "failed": False, "containers": [whole]})
    sound = parse(text.encode(), IDENTITY)
    assert sound is not None
    assert sound.backoffs == {"m": 10}
    assert sound.notices == (Notice(5.0, "Killing", "words", "m"),)
    for name, value in (("at", "6.0"), ("at", "5.0"), ("finished_at", "5.0"), ("backoff", "10")):
        damaged = text.replace(f'"{name}": {value}', f'"{name}": {number}')
        assert damaged != text
        if (name, number) != ("backoff", "null"):
            with pytest.raises(Invalid):
                parse(damaged.encode(), IDENTITY)
