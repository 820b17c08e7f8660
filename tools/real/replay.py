"""Asks a fresh simulator what a transcript asked of an account, and says what it answers otherwise.

Placeholders stand for other things here: those of answers for what the simulator gives at the same
place, the account's for what was made for the replay, all others for something of the same form.
Where an account had come further, the simulator is asked again until it has, too. Times, texts and
numbers are not compared: `shapes` is.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore import exceptions as sdk
from botocore import xform_name
from botocore.config import Config

from adapters.fargate import furnish
from adapters.simulators.aws import Simulator
from bridge.errors import Invalid, Violation
from tools.real import shapes
from tools.real.plain import BYTES, plain
from tools.real.recorder import FORMAT, READS
from tools.real.redact import PLACEHOLDER

SCALE = 30.0
"""How many times faster the simulated time goes: a task runs after a second."""
BEHIND, SAME = 15.0, 3.0
"""Seconds that it may take until a state has come, and until an answer in the same state has all
that was recorded."""
_PAUSE = 0.02
"""Seconds between looks: less than any state lasts."""
_THROTTLES = ("Throttl", "TooManyRequests", "SlowDown", "RequestLimitExceeded")
_FORMS: Mapping[str, str] = {
    "hex": "{:032x}",
    "digest": "sha256:{:064x}",
    "uuid": "00000000-0000-4000-8000-{:012x}",
    "account": "{:012d}",
    "ip": "10.9.8.{}",
    "mac": "02:00:00:00:00:{:02x}",
    **{
        one: one + "-{:017x}"
        for one in ("subnet", "sg", "eni", "vpc", "vpce", "fs", "fsap", "igw", "rtb", "i")
    },
}
"""What a placeholder without a meaning becomes; all others are a word and their number."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a file has."""

    about: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]


def read(file: Path) -> Transcript:
    """A transcript. Invalid."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(violations=[Violation("", str(error), str(file))]) from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            if not isinstance(one, dict) or (
                number > 1 and not isinstance(one["parameters"], dict)
            ):
                raise ValueError("it is no call")
        except (ValueError, KeyError) as error:
            words = f"line {number} makes no sense: {error}"
            raise Invalid(violations=[Violation("", words, str(file))]) from None
        found.append(one)
    if not found or found[0].get("transcript") != FORMAT:
        words = f'the first line has no "transcript": {FORMAT}'
        raise Invalid(violations=[Violation("", words, str(file))])
    return Transcript(found[0], found[1:])


def compare(file: Path, say: Callable[[str], None]) -> int:
    """Replays it and says what differs; the exit code: 1 where anything does. Invalid."""
    transcript = read(file)
    found = asyncio.run(replay(transcript))
    for one in found:
        say(one)
    where = "a simulator" if transcript.about.get("simulated") else "a real account"
    said = f"{len(found)} differences" if found else "nothing differs"
    say(f"{len(transcript.calls)} calls of {where}, replayed on a fresh simulator: {said}")
    return 1 if found else 0


async def replay(transcript: Transcript) -> list[str]:
    """What a fresh simulator says otherwise, in words."""
    async with Simulator(time_scale=SCALE, run_on="process") as simulator:
        region = simulator.environment["AWS_REGION"]
        options = await furnish(simulator.endpoint, simulator.environment, "process")
        player = _Player(simulator.endpoint, region, options)
        try:
            # The SDK blocks its thread; the simulator lives in this one's loop.
            return await asyncio.to_thread(player.play, transcript.calls)
        finally:
            player.close()


class Bindings:
    """What placeholders stand for here."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """`known`: by placeholder, `<bucket-1>`."""
        self._known = dict(known)

    def given(self, value: Any) -> Any:
        """A recorded value as it can be asked for."""
        if isinstance(value, Mapping):
            if value.keys() == {BYTES}:
                return b"A=" + b"x" * max(0, int(value[BYTES]) - 2)
            return {self.given(key): self.given(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.given(one) for one in value]
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda found: self._meant(found[0], found[1], found[2]), value)
        return value

    def _meant(self, name: str, what: str, number: str) -> str:
        if name not in self._known:
            self._known[name] = _FORMS.get(what, what + "-{}").format(int(number))
        return self._known[name]

    def learn(self, recorded: Any, played: Any) -> None:
        """Takes what an answer has in a placeholder's place for it."""
        if isinstance(recorded, Mapping) and isinstance(played, Mapping):
            for key, one in recorded.items():
                if (mine := self.given(key)) in played:
                    self.learn(one, played[mine])
        elif isinstance(recorded, list) and isinstance(played, list):
            for one, other in zip(recorded, played, strict=False):
                self.learn(one, other)
        elif isinstance(recorded, str) and isinstance(played, str):
            self._match(recorded, played)

    def _match(self, recorded: str, played: str) -> None:
        unknown: list[str] = []
        parts, at = [], 0
        for found in PLACEHOLDER.finditer(recorded):
            parts.append(re.escape(recorded[at : found.start()]))
            at = found.end()
            if found[0] in self._known:
                parts.append(re.escape(self._known[found[0]]))
            elif found[0] in unknown:
                parts.append(f"(?P=p{unknown.index(found[0])})")
            else:
                parts.append(f"(?P<p{len(unknown)}>.+?)")
                unknown.append(found[0])
        parts.append(re.escape(recorded[at:]))
        if unknown and (match := re.fullmatch("".join(parts), played, re.DOTALL)):
            self._known |= {name: match[f"p{index}"] for index, name in enumerate(unknown)}


class _Player:
    """One replay."""

    def __init__(self, endpoint: str, region: str, options: Mapping[str, Any]) -> None:
        self._endpoint = endpoint
        self._hopeless: dict[str, set[str]] = {}
        """What was waited for in vain, by operation: once is enough."""
        self._given_up: set[str] = set()
        """ARNs of tasks that never came as far; likewise."""
        self._session = boto3.session.Session(
            aws_access_key_id="simulated", aws_secret_access_key="simulated", region_name=region
        )
        self._clients: dict[str, Any] = {}
        known = {
            "<region-1>": region,
            "<account-1>": options["execution_role"].split(":")[4],
            "<cluster-1>": options["cluster"],
            "<bucket-1>": options["bucket"],
            "<log-group-1>": options["log_group"],
            "<owner-1>": "podbridge-real-00000000",
        }
        self._bound = Bindings(known)
        self._began = time.time()

    def close(self) -> None:
        """Lets go of connections."""
        for one in self._clients.values():
            one.close()

    def play(self, calls: Sequence[Mapping[str, Any]]) -> list[str]:
        """All calls, in their order; what differs."""
        recorded, played = shapes.Side(), shapes.Side()
        found: list[str] = []
        for one in calls:
            if _is_chance(one):
                continue
            operation = f"{one['service']}:{one['operation']}"
            answer, code = self._asked(one, operation, played)
            if code != (expected := one.get("error", {}).get("code", "")):
                found.append(
                    f"{operation}: recorded {expected or 'an answer'}, simulated "
                    f"{code or 'an answer'} (call {one['n']})"
                )
            elif "answer" in one:
                recorded.add(operation, one["answer"])
                played.add(operation, answer)
                self._bound.learn(one["answer"], answer)
        return [*dict.fromkeys(found), *shapes.differences(recorded, played)]

    def _asked(
        self, one: Mapping[str, Any], operation: str, played: shapes.Side
    ) -> tuple[Any, str]:
        """The answer that comes closest, and the error's code."""
        reads = one["operation"].startswith(READS)
        wanted = one.get("answer")
        hopeless = self._hopeless.setdefault(operation, set())
        if one["operation"] == "StopTask":
            self._reach(one["parameters"], wanted)
        began = time.monotonic()
        settled: float | None = None
        while True:
            answer, code = self._once(one)
            now = time.monotonic()
            if any(word in code for word in _THROTTLES):
                if now > began + BEHIND:
                    return answer, code
                time.sleep(_PAUSE)
                continue
            if not code:
                played.saw(answer)
            if code or not reads or wanted is None:
                return answer, code
            missing = shapes.missing(answer, wanted)
            if missing <= hopeless:
                return answer, code
            ours, theirs = shapes.states(answer), shapes.states(self._bound.given(wanted))
            late = {arn for arn in ours.keys() & theirs if ours[arn] < theirs[arn]}
            if late - self._given_up:
                settled = None
                if now > began + BEHIND:
                    self._given_up |= late
            elif ours != theirs:
                # It has gone further, or another way: what it was then will not come again.
                return answer, code
            elif now > (settled := settled or now) + SAME:
                hopeless |= missing
                return answer, code
            time.sleep(_PAUSE)

    def _reach(self, parameters: Mapping[str, Any], wanted: Any) -> None:
        """Waits until a task has come as far as it had when it was stopped."""
        given = self._bound.given({"cluster": parameters["cluster"], "tasks": [parameters["task"]]})
        theirs = shapes.states(self._bound.given(wanted))
        end = time.monotonic() + BEHIND
        while time.monotonic() < end and theirs.keys().isdisjoint(self._given_up):
            ours = shapes.states(self._client("ecs").describe_tasks(**given))
            if all(ours.get(arn, state) >= state for arn, state in theirs.items()):
                return
            time.sleep(_PAUSE)
        self._given_up |= theirs.keys()

    def _once(self, one: Mapping[str, Any]) -> tuple[Any, str]:
        method = getattr(self._client(one["service"]), xform_name(one["operation"]))
        try:
            answer = method(**self._bound.given(one["parameters"]))
        except sdk.ClientError as error:
            return None, str(error.response.get("Error", {}).get("Code", ""))
        except sdk.ParamValidationError as error:
            return None, f"ParamValidationError: {error}"
        if hasattr(answer.get("Body"), "close"):
            answer["Body"].close()
        return plain(answer, self._began), ""

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
            self._clients[service] = self._session.client(
                service, endpoint_url=self._endpoint, config=config
            )
        return self._clients[service]


def _is_chance(one: Mapping[str, Any]) -> bool:
    """Whether a call ended as it did by the moment alone: nobody answered, or a throttle."""
    code = one.get("error", {}).get("code", "")
    return "lost" in one or any(word in code for word in _THROTTLES)
