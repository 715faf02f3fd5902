"""``deployments/logs`` and ``deployments/stats``: what a deployment's instances print and use."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.api.answers import Answer, as_json, as_text
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.logs import wants_to_follow
from ploinky.api.requests import Call
from ploinky.api.streams import Outlet, Stream
from ploinky.errors import EngineError, NotFound
from ploinky.interfaces import IDeploymentManager
from ploinky.telemetry.history import Starts
from ploinky.telemetry.load import Load
from ploinky.telemetry.usages import Figures
from ploinky.values import DeploymentKey, DeploymentView, InstanceStatus, Release

MOST_LINES = 10_000
FOLLOW_SECONDS = 1.0
"""Between looks at what instances have printed, where they are silent."""

LOOK_SECONDS = 2.0
"""Between looks at which instances there are; also how old figures may be."""


def deployment_at(manager: IDeploymentManager, key: DeploymentKey) -> DeploymentView:
    """Find a deployment.

    Raises:
        NotFound: There is none.
    """
    for view in manager.deployments():
        if view.deployment.key == key:
            return view
    raise NotFound(f"nothing is deployed at {key}")


class InstanceRoutes:
    """Looks, changes nothing."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/deployments"
        return [
            Endpoint("deployments.logs", "GET", f"{home}/logs", self._logs),
            Endpoint("deployments.stats", "GET", f"{home}/stats", self._stats),
        ]

    # --- what they print

    async def _logs(self, call: Call) -> Answer | Stream:
        """The output of a release's instances, also of those that are gone; or why it failed."""
        view = self._view(call)
        lines = call.count("lines", 100, MOST_LINES)
        if wants_to_follow(call):
            wanted = call.count("release", 0, 2**31)
            produce = partial(self._follow, view.deployment.id, wanted, lines)
            return Stream("text/plain; charset=utf-8", produce)
        number = call.count("release", view.deployment.active_release, 2**31)
        releases = await self._its.deployment_store.releases(view.deployment.id)
        release = release_numbered(releases, number)
        number = number or (release.number if release else 0)
        said = await self._outputs(view.deployment.id, number, lines)
        if not any(said.values()):
            return as_text(_last_words(release))
        if len(said) == 1:
            return as_text(next(iter(said.values())))
        return as_text("\n".join(f"==> {one} <==\n{text}" for one, text in said.items()))

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

    async def _follow(self, deployment: str, release: int, lines: int, outlet: Outlet) -> None:
        """Write what instances print, those that come later too, until the deployment is removed."""
        marks: dict[str, str] = {}
        looked_at, shown = 0.0, ""
        while any(v.deployment.id == deployment for v in self._its.deployments.deployments()):
            silent = True
            try:
                if self._its.clock.seconds() - looked_at >= LOOK_SECONDS:
                    looked_at = self._its.clock.seconds()
                    there = await self._instances(deployment, release)
                    marks = {one.instance: marks.get(one.instance, "") for one in there}
                for instance, mark in list(marks.items()):
                    part = await self._its.runtime.output_after(instance, mark, lines)
                    marks[instance] = part.mark
                    if part.text:
                        heading = f"==> {instance} <==\n" if instance != shown else ""
                        silent, shown = False, instance
                        await outlet.write((heading + part.text).encode("utf-8", "replace"))
            except EngineError as error:  # it may come back, and then we go on
                self._log.debug("cannot follow {id}: {why}", id=deployment, why=error.message)
            if silent:
                await deferLater(self._its.clock, FOLLOW_SECONDS)

    # --- what they use

    async def _stats(self, call: Call) -> Answer:
        view = self._view(call)
        deployment = view.deployment.id
        now = self._its.clock.seconds()
        figures = self._its.usages.figures()
        if not figures or min(each.at for each in figures) < now - LOOK_SECONDS:
            await self._its.usages.look()
        load = self._its.loads.by_deployment().get(deployment, Load())
        starts = self._its.history.starts().get(deployment, Starts())
        return as_json(
            {
                "inFlight": load.in_flight,
                "waiting": load.waiting,
                "starts": starts.count,
                "avgStartSeconds": starts.seconds / starts.count if starts.count else None,
                "instances": [
                    _figures(each)
                    for each in self._its.usages.figures()
                    if each.status.deployment == deployment
                ],
            }
        )

    def _view(self, call: Call) -> DeploymentView:
        key = call.key(call.query("domain"), call.query("path"))
        return deployment_at(self._its.deployments, key)


def _figures(seen: Figures) -> dict[str, Any]:
    status, usage = seen.status, seen.usage
    return {
        "instance": status.instance,
        "release": status.release,
        "running": status.running,
        "restarts": status.restarts,
        "exitCode": status.exit_code,
        "outOfMemory": status.out_of_memory,
        "cores": None if seen.cores is None else round(seen.cores, 4),
        "cpuSeconds": usage.cpu_seconds if usage else None,
        "memoryBytes": usage.memory_bytes if usage else None,
        "memoryLimitBytes": usage.memory_limit_bytes if usage else None,
        "processes": usage.processes if usage else None,
    }


def release_numbered(releases: list[Release], number: int) -> Release | None:
    """Find a release by its number; 0 is the newest."""
    for release in releases:
        if number in (0, release.number):
            return release
    return None


def _last_words(release: Release | None) -> str:
    error = release.error if release is not None else None
    if not error:
        return ""
    return str(error.get("output") or error.get("message") or "")
