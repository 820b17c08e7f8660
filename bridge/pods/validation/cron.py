"""The schedule of a CronJob: five fields, or a macro, as robfig/cron v3 reads them."""

from __future__ import annotations

import re

MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_NUMBER = re.compile("[0-9]{1,9}")


def schedule_problem(schedule: str) -> str | None:
    """What is wrong with a schedule, or None."""
    if "TZ" in schedule:
        return "found a time zone in the schedule; allowed: the field timeZone"
    if schedule.startswith("@every "):
        rest = schedule.removeprefix("@every ")
        if rest and not _DURATION.sub("", rest.removeprefix("+")):
            return None
        return f'found "{schedule[:60]}"; allowed: a duration as in "@every 1h30m"'
    if schedule.startswith("@"):
        if schedule in MACROS:
            return None
        return f'found "{schedule[:60]}"; allowed: {", ".join(MACROS)}, @every DURATION'
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        return (
            f"found {len(fields)} fields; allowed: 5 (minute, hour, day of month, month, "
            "day of week)"
        )
    for text, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        for part in filter(None, text.split(",")):
            problem = _part_problem(part, low, high, words)
            if problem:
                return f'{name} "{text[:40]}": {problem}'
    return None


def _part_problem(part: str, low: int, high: int, words: dict[str, int]) -> str | None:
    allowed = f"allowed: {low} to {high}" + (f" or {'-'.join(_ends(words))}" if words else "")
    span, *steps = part.split("/")
    ends = span.split("-")
    if len(steps) > 1 or len(ends) > 2:
        return f'found "{part}"; allowed: N, N-M, *, each with one /STEP'
    if steps and (not _NUMBER.fullmatch(steps[0]) or int(steps[0]) == 0):
        return f'found the step "{steps[0]}"; allowed: a number of 1 or more'
    if ends[0] in ("*", "?"):
        return None
    numbers = [words.get(end.lower(), _number(end)) for end in ends]
    if any(number is None or not low <= number <= high for number in numbers):
        return f'found "{span}"; {allowed}'
    if len(numbers) == 2 and (numbers[0] or 0) > (numbers[1] or 0):
        return f'found "{span}"; allowed: a range that does not run backwards'
    return None


def _ends(words: dict[str, int]) -> tuple[str, str]:
    known = list(words)
    return known[0], known[-1]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def time_zone_problem(zone: str) -> str | None:
    """What is wrong with a time zone's name, or None. It is looked up where this host has the
    IANA database."""
    parts = zone.split("/")
    if not zone or zone.lower() == "local" or any(part in ("", ".", "..") for part in parts):
        return f'found "{zone[:60]}"; allowed: a name of the IANA database ("Europe/Paris")'
    if any(not re.fullmatch(r"[A-Za-z._0-9+][A-Za-z.\-_0-9+]{0,13}", part) for part in parts):
        return f'found "{zone[:60]}"; allowed: a name of the IANA database ("Europe/Paris")'
    if not _is_zone(zone) and _is_zone("UTC"):
        return f'found "{zone[:60]}", which the IANA database does not have'
    return None


def _is_zone(name: str) -> bool:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few manifests name a zone

    try:
        ZoneInfo(name)
    # OSError: a folder of the database, such as "Europe".
    except (KeyError, ValueError, OSError):
        return False
    return True
