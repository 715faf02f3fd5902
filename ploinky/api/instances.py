"""``deployments/logs`` and ``deployments/stats``: what a deployment's instances print and use."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from twisted.logger import Logger

from ploinky.api.answers import Answer, as_json, as_text
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.following import Following
from ploinky.api.places import Places, masked
from ploinky.api.requests import Call
from ploinky.api.shapes import Domain, KeyForm, Place, whole
from ploinky.api.streams import Stream
from ploinky.deploy_errors import EngineError, EngineUnavailable
from ploinky.errors import NotFound
from ploinky.instance_values import InstanceStatus
from ploinky.routing.endings import ENDINGS
from ploinky.telemetry.history import Starts
from ploinky.telemetry.load import Load
from ploinky.telemetry.usages import Figures
from ploinky.values import Release

MOST_LINES = 10_000
LOOK_SECONDS = 2.0
"""How old figures may be."""


@frozen
class OutputQuery:
    """Which deployment's output, and how much of it.

    Attributes:
        lines: The last so many.
        release: 0: the one that serves; of what is followed, all.
        follow: Whether what is printed from now on is wanted, too.
    """

    domain: Domain
    path: Place
    lines: Annotated[int, whole(1, MOST_LINES)] = 100
    release: Annotated[int, whole(0, 2**31)] = 0
    follow: bool = False


@frozen(kw_only=True)
class InstanceFigures:
    """What an instance uses.

    Attributes:
        cores: On average since the last look.
        cpu_seconds: Since its last start.
        memory_bytes: Without what the kernel could drop at once.
    """

    instance: str
    release: int
    running: bool
    restarts: int
    exit_code: int | None
    out_of_memory: bool
    cores: float | None
    cpu_seconds: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    processes: int | None


@frozen(kw_only=True)
class DeploymentFigures:
    """What a deployment has in hand, and what its instances use.

    Attributes:
        starts: Of instances, since the server came up.
    """

    in_flight: int
    waiting: int
    starts: int
    avg_start_seconds: float | None
    instances: list[InstanceFigures]


class InstanceRoutes:
    """Looks, changes nothing."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._places = Places(collaborators)

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/deployments"
        return [
            Endpoint(
                "deployments.logs",
                "GET",
                f"{home}/logs",
                self._logs,
                queries=OutputQuery,
                gives="text/plain",
                errors=(NotFound, EngineError, EngineUnavailable),
            ),
            Endpoint(
                "deployments.stats",
                "GET",
                f"{home}/stats",
                self._stats,
                queries=KeyForm,
                gives=DeploymentFigures,
                errors=(NotFound,),
            ),
            Endpoint("instances.ending", "GET", ENDINGS, self._ending, internal=True),
        ]

    # --- how they end

    async def _ending(self, call: Call) -> Answer:
        """Tell a worker why an instance went away amid a call, if that is known soon."""
        if not call.request.is_from_worker:
            raise NotFound(f"there is nothing at GET {ENDINGS}")  # for anybody else
        since = self._its.clock.seconds() - float(call.query("age"))
        death = await self._its.deaths.cause(call.query("instance"), since)
        if death is None:
            raise NotFound("nobody knows of its end")
        known = await self._its.deployment_store.releases(death.deployment)
        release = next((one for one in known if one.number == death.release), None)
        return as_json(
            {
                "outline": death.outline,
                "failedAt": death.failed_at,
                "exitCode": death.exit_code,
                "outOfMemory": death.out_of_memory,
                "output": masked(death.output, release),
            }
        )

    # --- what they print

    async def _logs(self, call: Call) -> Answer | Stream:
        """Give what a release's instances printed, also those that are gone; or why it failed."""
        query = call.queries(OutputQuery)
        view = self._places.find(call.key(query.domain, query.path))
        if query.follow:
            following = Following(self._its, view.deployment.id, query.release, query.lines)
            return Stream("text/plain; charset=utf-8", following.write_to)
        number = query.release or view.deployment.active_release
        release = await self._places.release(view, number)
        number = number or (release.number if release else 0)
        said = await self._outputs(view.deployment.id, number, query.lines)
        if not any(said.values()):
            return as_text(_last_words(release))
        if len(said) == 1:
            return as_text(masked(next(iter(said.values())), release))
        parts = (f"==> {one} <==\n{masked(text, release)}" for one, text in said.items())
        return as_text("\n".join(parts))

    async def _outputs(self, deployment: str, release: int, lines: int) -> dict[str, str]:
        """Give the last lines by instance: of its earlier lives, and of this one."""
        said = dict(await self._its.history.outputs(deployment, release, lines))
        for status in await self._instances(deployment, release):
            now = await self._its.runtime.output(status.instance, lines)
            both = (said.get(status.instance, "") + now).splitlines(keepends=True)
            said[status.instance] = "".join(both[-lines:])
        return said

    async def _instances(self, deployment: str, release: int) -> list[InstanceStatus]:
        """Give the instances of a release; of all releases where that is 0."""
        return [
            status
            for status in await self._its.runtime.instances(self._its.cluster)
            if status.deployment == deployment and release in (0, status.release)
        ]

    # --- what they use

    async def _stats(self, call: Call) -> Answer:
        """Tell what a deployment has in hand, and what its instances use."""
        named = call.queries(KeyForm)
        deployment = self._places.find(call.key(named.domain, named.path)).deployment.id
        now = self._its.clock.seconds()
        seen = self._its.usages.figures()
        if not seen or min(each.at for each in seen) < now - LOOK_SECONDS:
            await self._its.usages.look()
        load = self._its.loads.by_deployment().get(deployment, Load())
        starts = self._its.history.starts().get(deployment, Starts())
        return as_json(
            DeploymentFigures(
                in_flight=load.in_flight,
                waiting=load.waiting,
                starts=starts.count,
                avg_start_seconds=starts.seconds / starts.count if starts.count else None,
                instances=[
                    _figures(each)
                    for each in self._its.usages.figures()
                    if each.status.deployment == deployment
                ],
            )
        )


def _figures(seen: Figures) -> InstanceFigures:
    status, usage = seen.status, seen.usage
    return InstanceFigures(
        instance=status.instance,
        release=status.release,
        running=status.running,
        restarts=status.restarts,
        exit_code=status.exit_code,
        out_of_memory=status.out_of_memory,
        cores=None if seen.cores is None else round(seen.cores, 4),
        cpu_seconds=usage.cpu_seconds if usage else None,
        memory_bytes=usage.memory_bytes if usage else None,
        memory_limit_bytes=usage.memory_limit_bytes if usage else None,
        processes=usage.processes if usage else None,
    )


def _last_words(release: Release | None) -> str:
    error = release.error if release is not None else None
    if not error:
        return ""
    return str(error.get("output") or error.get("message") or "")
