"""What is said of a judgement."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bridge.conformance import Check, Outcome, Report, Result, checks
from bridge.conformance.kit import Kit
from bridge.conformance.report import ended_event, junit, lines, result_event, summary

ROOT = Path(__file__).resolve().parents[2]


async def nothing(kit: Kit) -> None:
    raise AssertionError


CHECK = Check("theme.what", "does it", "Section", "It does it.", "", nothing)
OPTIONAL = Check("theme.more", "does more", "Section", "It may do more.", "exec", nothing)
FAILED = Result(CHECK, Outcome.FAILED, 1.5, expected="a < b", seen="b\x00\n  and <c>")
REPORT = Report(
    [
        FAILED,
        Result(CHECK, Outcome.PASSED, 0.25),
        Result(OPTIONAL, Outcome.SKIPPED, 0.0, reason="no ability exec: one"),
        Result(OPTIONAL, Outcome.SKIPPED, 0.0, reason="no ability exec: one"),
    ],
    left=["theme.what: pod-0"],
)


def test_a_failure_says_what_was_expected_what_was_seen_and_where_it_stands() -> None:
    assert lines(FAILED) == [
        "FAIL  theme.what                     1.50s  does it",
        "      expected  a < b",
        "      seen      b\x00 and <c>",
        '      contract  docs/contract.md, "Section": It does it.',
    ]


def test_a_skip_says_why() -> None:
    (line,) = lines(REPORT.results[2])
    assert line == "SKIP  theme.more                     0.00s  no ability exec: one"
    assert summary(REPORT) == "1 passed, 1 failed, 2 skipped (2 no ability exec)"


def test_events() -> None:
    event = ended_event(FAILED)
    assert (event["type"], event["check"], event["level"]) == ("failed", "theme.what", "core")
    assert (event["expected"], event["rule"]) == ("a < b", "It does it.")
    assert ended_event(REPORT.results[2])["level"] == "optional(exec)"
    counts = {"passed": 1, "failed": 1, "skipped": 2}
    assert result_event(REPORT) == {"type": "result", **counts, "left": ["theme.what: pod-0"]}


def test_junit_is_xml_whatever_was_seen() -> None:
    root = ElementTree.fromstring(junit(REPORT, "unix:///s\x01"))
    assert {"tests": "4", "failures": "1", "skipped": "2"}.items() <= root.attrib.items()
    (suite,) = root
    failure = suite[0].find("failure")
    assert failure is not None
    assert failure.text == "seen: b\ufffd\n  and <c>\ncontract: It does it."
    assert failure.get("message") == "expected a < b"
    skipped = suite[2].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no ability exec: one"


def test_every_check_is_named_once_and_its_section_is_in_the_contract() -> None:
    ids = [one.id for one in checks()]
    assert len(set(ids)) == len(ids)
    page = (ROOT / "docs" / "contract.md").read_text()
    headings = {line.lstrip("#").strip() for line in page.splitlines() if line.startswith("##")}
    assert {one.section for one in checks()} <= headings
