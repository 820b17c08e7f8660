"""The quick part of Kubernetes' own end-to-end tests, on a node whose pods run on the engine; and
what is made of their results."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import engine

from tools.conformance import columns, images, known, report, suite
from tools.conformance.variants import VARIANTS
from tools.control_plane import assets
from tools.control_plane.recipes import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600
"""Seconds for all of it, on a machine with much else to do; alone it takes a third of that."""
PODS = "[sig-node] Pods should be ready [NodeConformance] [Conformance]"
TAINTS = "[sig-node] Taints evict [Serial] [Conformance]"
JUNIT = f"""<testsuites><testsuite>
<testcase name="[BeforeSuite]" status="passed" time="1"></testcase>
<testcase name="[It] {PODS} [sig-node, Conformance]" status="passed" time="2.5"></testcase>
<testcase name="[It] [sig-apps] Job runs [Conformance] [sig-apps, Conformance]" status="failed"
  time="3"><failure message="Timed out.&#xA;more" type="failed">log</failure></testcase>
<testcase name="[It] [sig-apps] Job skips [Conformance] [sig-apps, Conformance]" status="skipped">
  <skipped message="skipped - only on clouds"></skipped></testcase>
<testcase name="[It] {TAINTS} [sig-node, Conformance]" status="skipped">
  <skipped message="skipped"></skipped></testcase>
<testcase name="[It] [sig-network] DNS [Conformance]" status="skipped">
  <skipped message="skipped"></skipped></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def needed() -> None:
    """What must be here; else the test is skipped, and says so."""
    try:
        programs = assets.locate(VERSIONS[0], ("agnhost", "ginkgo", "e2e.test"))
        assets.locate(VERSIONS[0])
    except assets.Missing as error:
        pytest.skip(str(error))
    if problem := engine.problem():
        pytest.skip(problem)
    try:
        images.provide(programs["agnhost"])
    except images.NotHere as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.usefixtures("needed")
def test_the_quick_part_passes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.conformance", "--quick", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"{len(known.lines(known.QUICK))} passed, 0 failed" in said


def results(tmp_path: Path) -> list[suite.Result]:
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    return suite.read(path, apart=True)


def test_results_are_read_with_their_reasons(tmp_path: Path) -> None:
    found = {one.name: (one.state, one.words) for one in results(tmp_path)}
    assert found == {
        PODS: ("passed", ""),
        "[sig-apps] Job runs [Conformance]": ("failed", "Timed out."),
        "[sig-apps] Job skips [Conformance]": ("skipped", "only on clouds"),
        TAINTS: ("skipped", "it stands no other test beside it"),
    }
    assert {one.name for one in suite.read(tmp_path / "junit.xml", apart=False)} == {*found} - {
        TAINTS
    }


def test_failures_and_passes_that_nobody_expects(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert [one.name for one in known.judge(found, {}).surprises] == [
        "[sig-apps] Job runs [Conformance]"
    ]
    verdict = known.judge(found, {"[sig-apps] Job runs [Conformance]": "why", PODS: "why"})
    assert ([*verdict.surprises], [one.name for one in verdict.mended]) == ([], [PODS])
    assert not verdict.good


def test_the_page_has_counts_and_reasons(tmp_path: Path) -> None:
    run = report.Run(results(tmp_path), "v1.36.3", 90.0, 12, VARIANTS["engine"])
    page = report.page(run, {"[sig-apps] Job runs [Conformance]": "no <such> ability"}, {PODS})
    assert "| sig-node: pods and containers | 1 | 1 | 0 | 1 | 1 |" in page
    assert "| sig-apps: Job and CronJob | 1 | 0 | 1 | 1 | 0 |" in page
    assert "no \\<such> ability\n\n- [sig-apps] Job runs [Conformance]\n" in page
    assert "- [sig-apps] Job skips [Conformance]: only on clouds\n" in page


def test_the_backends_stand_side_by_side(tmp_path: Path) -> None:
    for name, variant in (("conformance.md", "engine"), ("conformance-fargate.md", "fargate")):
        found = results(tmp_path)
        if variant == "fargate":
            found = [replace(one, state="failed") for one in found]
        run = report.Run(found, "v1.36.3", 90.0, 12, VARIANTS[variant])
        (tmp_path / name).write_text(report.page(run, {}, set()))
    columns.refresh(tmp_path)
    page = (tmp_path / "conformance.md").read_text()
    links = "[engine](conformance.md) | [fargate, simulated](conformance-fargate.md)"
    assert f"| group | {links} |\n|---|---|---|\n" in page
    assert "| sig-node: pods and containers | 1 of 1 | 0 of 2 |" in page
    assert "| **the four together** | 1 of 2 | 0 of 4 |" in page
    columns.refresh(tmp_path)
    assert (tmp_path / "conformance.md").read_text() == page
    assert columns.BEGIN not in (tmp_path / "conformance-fargate.md").read_text()


def test_what_was_run_again_counts_as_it_ended_then(tmp_path: Path) -> None:
    first = results(tmp_path)
    job = next(one for one in first if one.state == "failed")
    found = suite.merged(first, [replace(job, state="passed", words="")])
    assert [(one.name, one.tries) for one in found if one.state == "passed"] == [
        (job.name, 2),
        (PODS, 1),
    ]
    page = report.page(report.Run(found, "v1.36.3", 90.0, 12, VARIANTS["engine"]), {}, set())
    assert f"## What passed at the second try, with less beside it\n\n- {job.name}\n" in page


def test_a_name_is_its_own_regular_expression_and_of_no_longer_one() -> None:
    name = "[sig-node] Probing (a+b) should work [Conformance]"
    wanted = suite.exactly([name])
    assert re.search(wanted, name)
    assert not re.search(wanted, f"{name} and more")


def test_every_known_miss_and_quick_test_is_in_a_group() -> None:
    files = [one for variant in VARIANTS.values() for one in variant.known]
    for name in (*known.misses(files), *known.lines(known.QUICK), *known.lines(known.IDLE)):
        assert suite.Result(name, "passed", 0, "").group in suite.GROUPS, name
