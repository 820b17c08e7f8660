"""What a cloud does for the groups of one backend's pods: all that is asked of it here."""

from __future__ import annotations

from typing import Protocol, TypeVar

from bridge.groups.pods import Ending, Pod

P_contra = TypeVar("P_contra", bound=Pod, contravariant=True)


class GroupCloud(Protocol[P_contra]):
    """Errors as of an adapter's calls."""

    async def launch(self, pod: P_contra) -> bool:
        """One try to have its group: what an earlier try, or another provider, has launched is
        taken. Never called twice at once for a pod. Returns whether there is one now, or never
        will be; False: to be tried again.

        Invalid, Unsupported: it never can. All else is tried again, after a while.
        """

    async def find_out(self, pod: P_contra) -> None:
        """Returns once it is known what has come of tries that nobody has answered; there are no
        more of them. Unavailable: it is too soon to say."""

    async def end(self, pod: P_contra, why: Ending) -> None:
        """Begins to end its group. NotFound: there is none any more."""
