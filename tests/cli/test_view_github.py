from __future__ import annotations

from pathlib import Path

from view_kit import (
    SYNCED,
    Clock,
    a_failed_run,
    a_pod,
    added,
    bytes_of,
    ended,
    running,
    stream,
    text_of,
)

from bridge.cli.view.closing import gather
from bridge.cli.view.github import GitHubView
from bridge.pods import Manifest


async def tail(pod: Manifest, container: str, lines: int, previous: bool) -> bytes:
    return b"```\n100% <b>\n"


def a_view(summary: Path | None = None) -> GitHubView:
    environ = {"GITHUB_STEP_SUMMARY": str(summary)} if summary else {}
    view = GitHubView(
        stream(), stream(), "r", clock=Clock(), environ=environ, token=lambda: "secret"
    )
    view.change(SYNCED)
    return view


def out(view: GitHubView) -> str:
    assert hasattr(view.stdout, "buffer")
    return text_of(view.stdout)


def test_each_pod_s_log_is_one_group_without_commands() -> None:
    view = a_view()
    one, two = a_pod("a", running()), a_pod("b", containers={"x": running(), "y": running()})
    view.change(added(one))
    view.change(added(two))
    view.log(one, "main", b"1\n")
    view.log(two, "y", b"::error::evil\n")
    view.log(one, "main", b"2")
    assert out(view) == ""
    view.log_ended(two)
    view.log_ended(one)
    assert out(view) == (
        "::group::b\n::stop-commands::secret\ny | ::error::evil\n::secret::\n::endgroup::\n"
        "::group::a\n::stop-commands::secret\n1\n2\n::secret::\n::endgroup::\n"
    )


def test_a_long_log_goes_through_a_file_and_comes_whole() -> None:
    view = a_view()
    one = a_pod("a", running())
    view.change(added(one))
    view.change(added(a_pod("b")))
    for _ in range(10):
        view.log(one, "main", b"x" * 99_999 + b"\n")
    view.log_ended(one)
    assert out(view).count("x") == 999_990


def test_one_container_keeps_stdout_and_its_commands_are_noticed() -> None:
    view = a_view()
    pod = a_pod("a", running())
    view.change(added(pod))
    for _ in range(2):
        view.log(pod, "main", b"ok\n::set-output name=x::y\n")
    assert out(view) == "ok\n::set-output name=x::y\n" * 2
    assert text_of(view.stderr).count("contains workflow commands") == 1


async def test_annotations_and_the_step_summary(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    view = a_view(path)
    for one in a_failed_run()[:4]:
        view.change(added(one))
    view.log(a_failed_run()[1], "main", b"left\n")
    await view.finish(await gather(view.model, "r", 1, 2.0, tail))
    lines = out(view).splitlines()
    assert lines[:5] == [
        "::group::wordcount-0-aaaaa",
        "::stop-commands::secret",
        "left",
        "::secret::",
        "::endgroup::",
    ]
    assert lines[5] == (
        "::error title=job/wordcount%3A wordcount-1-bbbbb (index 1)::exit code 3%0A```%0A100%25 <b>"
    )
    said = text_of(view.stderr).splitlines()
    assert said.index("::stop-commands::secret") < said.index("    ```")
    assert said[-1] == "::secret::"
    assert path.read_text().splitlines()[:8] == [
        "before",
        "### r: failed in 2 s (3 pods, 2 failed)",
        "",
        "| Pod | Job | Backend | Index | Ended | Took | Exit | Restarts |",
        "|---|---|---|---|---|---|---|---|",
        "| wordcount-1-bbbbb | wordcount | process | 1 | failed | 1 s | 3 | 0 |",
        "| wordcount-2-ccccc | wordcount | process | 2 | failed | 2 s | 137 | 0 |",
        "| wordcount-0-aaaaa | wordcount | process | 0 | succeeded | 4 s | 0 | 0 |",
    ]
    assert "    100% <b>" in path.read_text().splitlines()


async def test_a_summary_that_cannot_be_written_is_only_said(tmp_path: Path) -> None:
    view = a_view(tmp_path)
    view.change(added(a_pod("a", ended())))
    await view.finish(await gather(view.model, "r", 0, 2.0))
    assert b"step summary cannot be written" in bytes_of(view.stderr)


def test_a_message_of_a_container_is_no_command() -> None:
    view = a_view()
    view.change(added(a_pod("a", phase="Failed", reason="Evicted", message="##[add-path]/evil")))
    assert "##[" not in text_of(view.stderr)
