from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from view_kit import a_failed_run, a_job, a_pod, ended, model_of, running

from bridge.cli.view.junit import check_writable, render, suites, write
from bridge.errors import Invalid
from bridge.pods import Manifest


async def tail(pod: Manifest, container: str, lines: int, previous: bool) -> bytes:
    return b"]]> <b>\x1b[1m\x00 last words \xff & more\n"


def xml(*objects: Manifest) -> str:
    model = model_of(*objects)
    return "".join(render("r", suites(model, "r"), {}))


async def test_a_failed_run(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    await write(path, model_of(*a_failed_run()), "wordcount", tail)
    totals = 'tests="3" failures="1" errors="0" skipped="0" time="6.000"'
    assert path.read_text() == (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuites name="wordcount" {totals}>\n'
        f'  <testsuite name="wordcount" {totals}>\n'
        '    <testcase classname="wordcount" name="wordcount[0]" time="4.000"/>\n'
        '    <testcase classname="wordcount" name="wordcount[1]" time="1.000">\n'
        "      <system-out>attempt 1 (wordcount-1-bbbbb) failed: exit code 3</system-out>\n"
        "    </testcase>\n"
        '    <testcase classname="wordcount" name="wordcount[2]" time="1.000">\n'
        '      <failure type="Error" message="exit code 137: killed by SIGKILL (out of memory?)">'
        "]]&gt; &lt;b&gt;\ufffd[1m\ufffd last words \ufffd &amp; more\n</failure>\n"
        "      <system-out>attempt 1 (wordcount-2-ccccc) failed: "
        "exit code 137: killed by SIGKILL (out of memory?)</system-out>\n"
        "    </testcase>\n"
        "  </testsuite>\n"
        "</testsuites>\n"
    )
    ElementTree.parse(path)
    assert os.listdir(tmp_path) == ["report.xml"]


def test_pods_that_were_replaced_in_a_job_that_succeeded_are_no_failures() -> None:
    text = xml(
        a_job(indexed=False, ended_as=("Complete", "CompletionsReached", "")),
        a_pod("a", ended(1), job="wordcount"),
        a_pod("b", ended(0), job="wordcount", serial=1),
    )
    suite = ElementTree.fromstring(text)[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert suite.findtext("system-out") == "a failed and was retried: exit code 1"


def test_pods_of_their_own_and_those_that_never_ended() -> None:
    text = xml(a_pod("ok", ended(0)), a_pod("bad", ended(2)), a_pod("busy", running()))
    suite = ElementTree.fromstring(text)[0]
    assert [case.get("name") for case in suite] == ["ok", "bad", "busy"]
    assert [[part.tag for part in case] for case in suite] == [[], ["failure"], ["skipped"]]


def test_a_job_that_failed_without_a_failed_pod_is_a_failure() -> None:
    job = a_job(indexed=False, ended_as=("Failed", "DeadlineExceeded", "too long"))
    failure = ElementTree.fromstring(xml(job)).find(".//failure")
    assert failure is not None
    assert failure.get("message") == (
        "ran longer than activeDeadlineSeconds (DeadlineExceeded): too long"
    )


def test_indexes_that_never_ran_are_skipped() -> None:
    text = xml(a_job(completions=2), a_pod("a", ended(), job="wordcount", index=0))
    assert [case.find("skipped") is not None for case in ElementTree.fromstring(text)[0]] == [
        False,
        True,
    ]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.xml")
    assert list(tmp_path.iterdir()) == []
    for path in (tmp_path, tmp_path / "missing" / "report.xml"):
        with pytest.raises(Invalid, match=r"--junit: .* cannot be written"):
            check_writable(path)
