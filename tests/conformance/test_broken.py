"""Each check bites: a provider with one defect fails the check made for it, and no other."""

from __future__ import annotations

from pathlib import Path

import broken
import pytest
from conformance_kit import TIMEOUT, failed, judged, serving

from bridge.provider.service import Provider

pytestmark = pytest.mark.slow

DEFECTS: list[tuple[type[Provider], str, str]] = [
    # Eight creates at once may meet it as well.
    (broken.RunsTwice, "^create[.](?!concurrent)", "create.idempotent"),
    (broken.LosesCode, "^ends[.]", "ends.exit-code"),
    (broken.GoesBack, "^(ends|containers)[.]", "ends.final"),
    (broken.Leaks, "^delete[.](gone|ended|unknown|term|at-once|nothing)", "delete.nothing-left"),
    (broken.DropsField, "^errors[.]", "errors.unsupported"),
    (broken.ConfusesNames, "^identity[.]", "identity.facts"),
    (broken.ConfusesLogs, "^identity[.]", "identity.logs"),
    (broken.DropsEnd, "^watch[.]", "watch.ends-kept"),
    (broken.MixesStreams, "^logs[.]", "logs.streams"),
    (broken.ExitsEarly, "^exec[.]", "exec.exit-last"),
    (broken.TellsSecret, "^(secrets|errors)[.]", "secrets.not-in-errors"),
]


@pytest.mark.parametrize(
    ("defect", "focus", "caught"), DEFECTS, ids=[one[0].__name__ for one in DEFECTS]
)
async def test_a_defect_fails_the_check_made_for_it(
    defect: type[Provider], focus: str, caught: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, defect) as place:
        report = await judged(place, focus)
    assert list(failed(report)) == [caught], failed(report)
    assert len(report.results) > 1
    assert not report.left


async def test_a_mark_that_never_comes_fails_its_own_check_in_time(tmp_path: Path) -> None:
    async with serving(tmp_path, broken.NeverSyncs) as place:
        report = await judged(place, "^watch[.]", timeout=6.0)
    assert list(failed(report)) == ["watch.sync"], failed(report)
    (result,) = report.failed
    assert result.expected.startswith("a sync mark for each backend")
    assert result.expected.endswith("within 6 s")
    assert not report.left


@pytest.mark.parametrize(
    ("defect", "caught"),
    [(broken.ForgetsRunning, "restart.adopts"), (broken.ForgetsEnds, "restart.keeps-ends")],
)
async def test_what_is_forgotten_at_a_restart_is_missed(
    defect: type[Provider], caught: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, Provider, defect) as place:
        report = await judged(place, "^restart[.]")
    assert list(failed(report)) == [caught], failed(report)
    assert not report.left


async def test_what_leaks_is_really_there(tmp_path: Path) -> None:
    async with serving(tmp_path, broken.Leaks) as place:
        report = await judged(place, "^delete[.]nothing-left", timeout=TIMEOUT)
        left = await place.clean()
    assert list(failed(report)) == ["delete.nothing-left"], failed(report)
    assert left == ["pod-0"]
