"""``logs``: the server's own, as text or JSON, followed, or a day of it to take away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Annotated

from attrs import frozen
from twisted.internet.task import deferLater

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.shapes import whole
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


class LogFormat(str, Enum):
    """How a log is written."""

    TEXT = "text"
    JSON = "json"


@frozen
class LogQuery:
    """Which log.

    Attributes:
        log: server, or access: one line a call.
    """

    log: str = SERVER

    def name(self) -> str:
        """Give its name.

        Raises:
            ValidationFailed: There is none of that name.
        """
        if self.log not in LOGS:
            raise ValidationFailed({"log": f"expected one of {', '.join(LOGS)}"})
        return self.log


@frozen
class LinesQuery(LogQuery):
    """Which lines of a log.

    Attributes:
        lines: The last so many.
        level: This one and worse: debug, info, warn, error.
        request: Of the request with this id.
        deployment: That name this domain/path.
        follow: Whether what comes from now on is wanted, too.
    """

    lines: Annotated[int, whole(1, MOST_LINES)] = 100
    level: str = ""
    request: str = ""
    deployment: str = ""
    format: LogFormat = LogFormat.TEXT
    follow: bool = False

    def wanted(self) -> Wanted:
        """Give what is wanted of the log.

        Raises:
            ValidationFailed: There is no such level.
        """
        if self.level and self.level not in LOG_LEVELS:
            raise ValidationFailed({"level": f"expected one of {', '.join(LOG_LEVELS)}"})
        return Wanted(self.level, self.request, self.deployment)


@frozen(kw_only=True)
class DayQuery(LogQuery):
    """Which day of a log.

    Attributes:
        date: Such as 2024-01-15, in UTC.
    """

    date: str


@frozen
class DateList:
    """The days that there is a log of, the newest first."""

    dates: list[str]


class LogRoutes:
    """Looks, changes nothing."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._directory = collaborators.log_directory

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "logs",
                "GET",
                f"{API}/logs",
                self._logs,
                queries=LinesQuery,
                gives=("text/plain", "application/jsonl"),
            ),
            Endpoint(
                "logs.list", "GET", f"{API}/logs/list", self._list, queries=LogQuery, gives=DateList
            ),
            Endpoint(
                "logs.download",
                "GET",
                f"{API}/logs/download",
                self._download,
                queries=DayQuery,
                gives="application/gzip",
                errors=(NotFound,),
            ),
        ]

    async def _logs(self, call: Call) -> Answer | Stream:
        """Give the last lines of a log of the server's, and what comes after them."""
        query = call.queries(LinesQuery)
        name, wanted, lines = query.name(), query.wanted(), query.lines
        is_json = query.format is LogFormat.JSON
        run = self._its.files.run
        if query.follow:
            follower = await run(Follower, self._directory, name)
            first = await run(follower.before, lines, wanted)
            return Stream(_type(is_json), partial(self._follow, follower, wanted, is_json, first))
        found = await run(tail, self._directory, lines, name, wanted)
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
        """List the days that there is a log of."""
        name = call.queries(LogQuery).name()
        return as_json(DateList(await self._its.files.run(dates, self._directory, name)))

    async def _download(self, call: Call) -> Stream:
        """Give a day of a log, compressed."""
        query = call.queries(DayQuery)
        date, name = query.date, query.name()
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


def _type(is_json: bool) -> str:
    return "application/jsonl" if is_json else "text/plain; charset=utf-8"


def _shown(lines: Sequence[bytes], is_json: bool) -> bytes:
    if is_json:
        return b"".join(line + b"\n" for line in lines)
    return "".join(f"{for_people(line)}\n" for line in lines).encode("utf-8", "replace")
