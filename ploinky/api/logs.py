"""``logs``: the server's own, as text or JSON, followed, or a day of it to take away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from twisted.internet.task import deferLater

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.streams import Outlet, Stream
from ploinky.errors import NotFound, ValidationFailed
from ploinky.settings import LOG_LEVELS
from ploinky.telemetry.logs import SERVER
from ploinky.telemetry.reading import (
    LOGS,
    Compressed,
    Follower,
    Wanted,
    dates,
    for_people,
    tail,
)

MOST_LINES = 100_000
FOLLOW_SECONDS = 0.5
"""Between looks at what was added."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_TRUE = ("1", "true", "yes")


def wants_to_follow(call: Call) -> bool:
    """Tell whether a call asks for what comes next, too."""
    return call.query("follow").lower() in _TRUE


class LogRoutes:
    """Looks, changes nothing."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._directory = collaborators.log_directory

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint("logs", "GET", f"{API}/logs", self._logs),
            Endpoint("logs.list", "GET", f"{API}/logs/list", self._list),
            Endpoint("logs.download", "GET", f"{API}/logs/download", self._download),
        ]

    async def _logs(self, call: Call) -> Answer | Stream:
        name, wanted = _which(call), _wanted(call)
        lines = call.count("lines", 100, MOST_LINES)
        is_json = call.query("format") == "json"
        follower = None
        if wants_to_follow(call):  # from here on, so that nothing falls in between
            follower = await self._its.files.run(Follower, self._directory, name)
        found = await self._its.files.run(tail, self._directory, lines, name, wanted)
        if follower is not None:
            produce = partial(self._follow, follower, wanted, is_json, found)
            return Stream(_type(is_json), produce)
        return Answer(_shown(found, is_json), _type(is_json))

    async def _follow(
        self, follower: Follower, wanted: Wanted, is_json: bool, first: list[bytes], outlet: Outlet
    ) -> None:
        await outlet.write(_shown(first, is_json))
        while True:
            lines = await self._its.files.run(follower.added)
            if lines:
                meant = [line for line in lines if wanted.admits(line)]
                await outlet.write(_shown(meant, is_json))
            else:
                await deferLater(self._its.clock, FOLLOW_SECONDS)

    async def _list(self, call: Call) -> Answer:
        return as_json({"dates": await self._its.files.run(dates, self._directory, _which(call))})

    async def _download(self, call: Call) -> Stream:
        date, name = call.query("date"), _which(call)
        if not _DATE.match(date):
            raise ValidationFailed({"date": "expected a day such as 2024-01-15"})
        try:
            packed = await self._its.files.run(Compressed, self._directory, name, date)
        except FileNotFoundError:
            raise NotFound(f"there is no log of {date}; see p-cli cloud logs list") from None

        async def produce(outlet: Outlet) -> None:
            try:
                while block := await self._its.files.run(packed.block):
                    await outlet.write(block)
            finally:
                packed.close()

        disposition = f'attachment; filename="{name}-{date}.jsonl.gz"'
        return Stream("application/gzip", produce, (("Content-Disposition", disposition),))


def _which(call: Call) -> str:
    name = call.query("log") or SERVER
    if name not in LOGS:
        raise ValidationFailed({"log": f"expected one of {', '.join(LOGS)}"})
    return name


def _wanted(call: Call) -> Wanted:
    level = call.query("level")
    if level and level not in LOG_LEVELS:
        raise ValidationFailed({"level": f"expected one of {', '.join(LOG_LEVELS)}"})
    return Wanted(level, call.query("request"), call.query("deployment"))


def _type(is_json: bool) -> str:
    return "application/jsonl" if is_json else "text/plain; charset=utf-8"


def _shown(lines: Sequence[bytes], is_json: bool) -> bytes:
    if is_json:
        return b"".join(line + b"\n" for line in lines)
    return "".join(f"{for_people(line)}\n" for line in lines).encode("utf-8", "replace")
