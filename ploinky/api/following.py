"""What a deployment's instances print, followed: from one to the next, secrets masked.

A deployment enters; text leaves at its reader's pace, until the deployment is removed.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.api.endpoints import Collaborators
from ploinky.api.places import mask_of
from ploinky.api.streams import Outlet
from ploinky.deploy_errors import EngineError
from ploinky.instance_values import InstanceStatus
from ploinky.telemetry.masking import NoMask, StreamMask

FOLLOW_SECONDS = 1.0
"""Between looks at what instances have printed, where they are silent."""

LOOK_SECONDS = 2.0
"""Between looks at which instances there are."""


@define
class _Voice:
    """One instance.

    Attributes:
        mark: How far it was read; ``""``: not at all.
        mask: Hides secrets, also those that are printed piece by piece.
    """

    mask: StreamMask | NoMask
    mark: str = ""


class Following:
    """One reader's way through the output.

    Args:
        deployment: Its id.
        release: 0: of any.
        lines: The last so many, to begin with.
    """

    _log = Logger()

    def __init__(
        self, collaborators: Collaborators, deployment: str, release: int, lines: int
    ) -> None:
        self._its = collaborators
        self._deployment = deployment
        self._release = release
        self._lines = lines
        self._voices: dict[str, _Voice] = {}
        self._shown = ""

    async def write_to(self, outlet: Outlet) -> None:
        """Write what instances print, those that come later too."""
        looked_at = 0.0
        while self._is_there():
            silent = True
            try:
                if self._its.clock.seconds() - looked_at >= LOOK_SECONDS:
                    looked_at = self._its.clock.seconds()
                    await self._look(outlet)
                for instance, voice in list(self._voices.items()):
                    silent = not await self._pass_on(instance, voice, outlet) and silent
            except EngineError as error:  # it may come back, and then we go on
                self._log.debug("cannot follow {id}: {why}", id=self._deployment, why=error.message)
            if silent:
                await deferLater(self._its.clock, FOLLOW_SECONDS)

    def _is_there(self) -> bool:
        views = self._its.deployments.deployments()
        return any(view.deployment.id == self._deployment for view in views)

    async def _look(self, outlet: Outlet) -> None:
        """See which instances there are; what was held back of those that are gone is written."""
        there = await self._its.runtime.instances(self._its.cluster)
        wanted = {one.instance: one.release for one in there if self._is_wanted(one)}
        for instance, voice in list(self._voices.items()):
            if instance not in wanted:
                del self._voices[instance]
                await self._write(instance, voice.mask.end(), outlet)
        if len(wanted) > len(self._voices):
            known = await self._its.deployment_store.releases(self._deployment)
            releases = {release.number: release for release in known}
            for instance, number in wanted.items():
                if instance not in self._voices:
                    self._voices[instance] = _Voice(mask_of(releases.get(number)))

    def _is_wanted(self, status: InstanceStatus) -> bool:
        is_ours = status.deployment == self._deployment
        return is_ours and self._release in (0, status.release)

    async def _pass_on(self, instance: str, voice: _Voice, outlet: Outlet) -> bool:
        """Write what an instance has printed since; tell whether there was anything."""
        part = await self._its.runtime.output_after(instance, voice.mark, self._lines)
        is_first, voice.mark = not voice.mark, part.mark
        mask = voice.mask
        text = mask.feed(part.text, is_cut=is_first) if part.text else mask.flush()
        await self._write(instance, text, outlet)
        return bool(part.text)

    async def _write(self, instance: str, text: str, outlet: Outlet) -> None:
        if not text:
            return
        heading = f"==> {instance} <==\n" if instance != self._shown else ""
        self._shown = instance
        await outlet.write((heading + text).encode("utf-8", "replace"))
