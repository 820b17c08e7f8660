"""A simulated AWS in a checkout where nobody has built the helper."""

from __future__ import annotations

import pytest
from e2e_kit import container, pod
from paid_kit import PaidPlace, paid

__all__ = ["paid"]

pytestmark = pytest.mark.slow


def test_plain_pods_run_and_the_others_are_refused(paid: PaidPlace) -> None:
    env = {"XDG_CACHE_HOME": str(paid.path / "empty-cache")}
    plain = paid.write("plain.yaml", pod("hello", container("echo hi"), restartPolicy="Never"))
    done = paid.do("run", "-f", plain, "--on", "fargate", "--simulate", "-q", env=env)
    assert done.out == "hi\n"
    assert "is not built: `make helper` in a checkout builds it; pods that need it" in done.err
    # Quiet as it is: what it runs on is no small thing.
    assert "process: plain processes of this machine" in done.err
    assert paid.run_names() == []

    again = paid.write("again.yaml", pod("again", "exit 0", restartPolicy="OnFailure"))
    done = paid.do("run", "-f", again, "--on", "fargate", "--simulate", code=2, env=env)
    assert "helper_image names no image of it" in done.err
    assert paid.run_names() == []
