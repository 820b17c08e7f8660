"""A judgement in words, as JSON events and as JUnit XML. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from bridge.conformance.model import Check, Outcome, Result
from bridge.conformance.runner import Report

CONTRACT = "docs/contract.md"
LONGEST = 2000
"""Characters of what was seen: facts of many containers stay readable."""

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def lines(result: Result) -> list[str]:
    """One line of a check; behind it, where it failed, what the contract says and what was seen."""
    check = result.check
    said = result.reason if result.outcome is Outcome.SKIPPED else check.title
    out = [f"{result.outcome}  {check.id:<28} {result.seconds:6.2f}s  {said}"]
    if result.outcome is Outcome.FAILED:
        out.append(f"      expected  {result.expected}")
        out.append(f"      seen      {_short(result.seen)}")
        out.append(f'      contract  {CONTRACT}, "{check.section}": {check.rule}')
    return out


def summary(report: Report) -> str:
    """The last line."""
    counts = [f"{len(report.of(one))} {word}" for one, word in _WORDS.items()]
    reasons = Counter(one.reason.partition(":")[0] for one in report.of(Outcome.SKIPPED))
    why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return ", ".join(counts) + (f" ({why})" if why else "")


_WORDS = {Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.SKIPPED: "skipped"}


def started_event(check: Check) -> dict[str, Any]:
    """A check has begun."""
    return {"type": "started", "check": check.id, "level": check.level, "title": check.title}


def ended_event(result: Result) -> dict[str, Any]:
    """A check has ended."""
    check = result.check
    event: dict[str, Any] = {
        "type": _WORDS[result.outcome],
        "check": check.id,
        "level": check.level,
        "title": check.title,
        "seconds": round(result.seconds, 3),
    }
    if result.outcome is Outcome.FAILED:
        event |= {"expected": result.expected, "seen": result.seen}
        event |= {"section": check.section, "rule": check.rule}
    elif result.outcome is Outcome.SKIPPED:
        event["reason"] = result.reason
    return event


def result_event(report: Report) -> dict[str, Any]:
    """The judgement is over."""
    counts = {word: len(report.of(one)) for one, word in _WORDS.items()}
    return {"type": "result", **counts, "left": report.left}


def junit(report: Report, address: str) -> bytes:
    """JUnit XML: a test suite for each theme, a case for each check."""
    root = ElementTree.Element("testsuites", {"name": f"podbridge conformance {_xml(address)}"})
    root.attrib |= _totals(report.results)
    for theme in dict.fromkeys(one.check.theme for one in report.results):
        of_theme = [one for one in report.results if one.check.theme == theme]
        suite = ElementTree.SubElement(root, "testsuite", {"name": theme, **_totals(of_theme)})
        for one in of_theme:
            _case(suite, one)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    check = result.check
    about = {"classname": check.theme, "name": check.id, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", about)
    if result.outcome is Outcome.FAILED:
        about = {"type": check.section, "message": _xml(f"expected {result.expected}")}
        failure = ElementTree.SubElement(case, "failure", about)
        failure.text = _xml(f"seen: {result.seen}\ncontract: {check.rule}")
    elif result.outcome is Outcome.SKIPPED:
        ElementTree.SubElement(case, "skipped", {"message": _xml(result.reason)})


def _totals(results: Sequence[Result]) -> dict[str, str]:
    def count(outcome: Outcome) -> str:
        return str(sum(one.outcome is outcome for one in results))

    return {
        "tests": str(len(results)),
        "failures": count(Outcome.FAILED),
        "errors": "0",
        "skipped": count(Outcome.SKIPPED),
        "time": f"{sum(one.seconds for one in results):.3f}",
    }


def _short(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}..."


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
