"""What an earlier leader left behind, however it ended: found, adopted, or named as rubbish.

The store, the engine and the data directory enter; a `Survey` leaves.  Nothing that may still
serve is ended here: workers that outlived the leader route by its last table until the manager has
published the next one.

Whatever step the leader was killed at, the store says which release is active, and that decides:

- its running instances are adopted, as many as it wants;
- every other instance with this server's label is a stray: of a release that was being prepared,
  or had been replaced, or of a deployment that is stopped, being removed or unknown, a second set
  that a restart had begun, or a throw-away container;
- a release that was being prepared has failed;
- code of releases that are neither active nor retired, and queues without an instance, are rubbish.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import attrs
from attrs import frozen
from twisted.logger import Logger

from ploinky.deploy_errors import ProbeFailed
from ploinky.deployment.entries import RUNNING, error_record, interrupted_record
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.jobs import together
from ploinky.deployment.manifest import Manifest
from ploinky.deployment.releases import remove_tree
from ploinky.deployment.spec import Layout, external_target, kind_of, replicas_of
from ploinky.errors import ManifestInvalid
from ploinky.instance_values import InstanceStatus
from ploinky.leader_interfaces import IInstances
from ploinky.store_interfaces import IDeploymentStore
from ploinky.threads import Blocking
from ploinky.values import Deployment, Kind, Release, ReleaseState, Target

_READ_AT_ONCE = 200
"""Deployments whose releases are read together, so that those of all are never held at once."""


@frozen
class Survivor:
    """A deployment as it was found.

    Attributes:
        release: The active one; None if none ever served.
        failed: The newest one, if it failed.
        newest: Number of the newest one; 0 if there is none.
        targets: Adopted instances, or where an external deployment leads.
    """

    deployment: Deployment
    release: Release | None
    failed: Release | None
    newest: int = 0
    targets: tuple[Target, ...] = ()


@frozen
class Survey:
    """All that was found.

    Attributes:
        strays: Instances to be drained and ended, once no table leads to them.
        rubbish: Directories to be deleted then.
    """

    survivors: tuple[Survivor, ...]
    strays: frozenset[str]
    rubbish: tuple[Path, ...]


class Recovery:
    """Finds out how things stand at the start of a server."""

    log = Logger()

    def __init__(
        self,
        blocking: Blocking,
        store: IDeploymentStore,
        instances: IInstances,
        fleet: Fleet,
        layout: Layout,
    ) -> None:
        self._blocking = blocking
        self._store = store
        self._instances = instances
        self._fleet = fleet
        self._layout = layout

    async def survey(self) -> Survey:
        """Look at everything, once, before anything new is begun.

        Raises:
            EngineUnavailable: What runs cannot be found out.
            StateUnusable: What should run cannot.
        """
        kept = await self._kept()
        found = await self._instances.discover()
        running: dict[tuple[str, int], list[InstanceStatus]] = defaultdict(list)
        for status in found:
            if status.running:
                running[status.deployment, status.release].append(status)
        survivors = await together(
            self._adopt(survivor, running[survivor.deployment.id, _number(survivor.release)])
            for survivor, _ in kept
        )
        adopted = {target.instance for survivor in survivors for target in survivor.targets}
        codes = {survivor.deployment.id: numbers for survivor, numbers in kept}
        rubbish = await self._blocking.run(_rubbish, self._layout, codes, adopted)
        strays = frozenset(status.instance for status in found) - adopted
        return Survey(tuple(survivors), strays, tuple(rubbish))

    async def _kept(self) -> list[tuple[Survivor, frozenset[int]]]:
        """Give what is on record: a transaction for each would take longer than all else here."""
        deployments = await self._store.deployments()
        kept = []
        for start in range(0, len(deployments), _READ_AT_ONCE):
            some = deployments[start : start + _READ_AT_ONCE]
            releases = await self._store.releases_of([one.id for one in some])
            kept += [await self._from_store(one, releases[one.id]) for one in some]
        return kept

    async def _from_store(
        self, deployment: Deployment, releases: list[Release]
    ) -> tuple[Survivor, frozenset[int]]:
        """Give a deployment without its instances, and the releases whose code is kept."""
        for index, release in enumerate(releases):
            if release.state is ReleaseState.PREPARING:
                releases[index] = attrs.evolve(
                    release, state=ReleaseState.FAILED, error=interrupted_record()
                )
                await self._store.save_release(releases[index])
        newest = releases[0] if releases else None
        active = next((one for one in releases if one.number == deployment.active_release), None)
        failed = newest if newest and newest.state is ReleaseState.FAILED else None
        if active is not None:
            try:
                Manifest.of(active.settings)
            except ManifestInvalid as error:  # written by another version of this server
                self.log.error("{key}: {why}", key=str(deployment.key), why=str(error))
                failed = attrs.evolve(active, error=error_record(error, "start"))
                active = None
        whole = (ReleaseState.ACTIVE, ReleaseState.RETIRED)
        numbers = frozenset(one.number for one in releases if one.state in whole)
        survivor = Survivor(deployment, active, failed, newest.number if newest else 0)
        return survivor, numbers

    async def _adopt(self, survivor: Survivor, running: Iterable[InstanceStatus]) -> Survivor:
        release, deployment = survivor.release, survivor.deployment
        if release is None or deployment.wanted != RUNNING:
            return survivor
        if release.request.target:
            leads = external_target(release.request.target, self._layout, any_socket=True)
            return attrs.evolve(survivor, targets=(leads,))
        if kind_of(release) is Kind.STATIC:
            return attrs.evolve(survivor, targets=await self._site(release, deployment))
        answers = await together(
            self._fleet.adopt(release, deployment.key, instance)
            for instance in sorted(status.instance for status in running)
        )
        targets = tuple(target for target in answers if target is not None)
        return attrs.evolve(survivor, targets=targets[: replicas_of(release)])

    async def _site(self, release: Release, deployment: Deployment) -> tuple[Target, ...]:
        """Give where a static release's files lie; nothing if somebody has taken them away."""
        try:
            return (await self._fleet.site(release, lambda step, line: None),)
        except ProbeFailed as error:
            self.log.error("{key}: {why}", key=str(deployment.key), why=str(error))
            return ()

    async def delete(self, rubbish: Iterable[Path]) -> None:
        """Delete what a survey called rubbish."""
        for directory in rubbish:
            await self._blocking.run(remove_tree, directory)


def _number(release: Release | None) -> int:
    return release.number if release else 0


def _rubbish(layout: Layout, codes: Mapping[str, frozenset[int]], adopted: Set[str]) -> list[Path]:
    """Name the directories that belong to nothing.  Volumes are never among them.  Blocks."""
    found = [queue for queue in _entries(layout.queues) if queue.name not in adopted]
    for deployment in _entries(layout.deployments):
        if deployment.name not in codes:
            code = layout.releases(deployment.name)
            holds_more = any(entry != code for entry in _entries(deployment))
            found.append(code if holds_more else deployment)
            continue
        names = {str(number) for number in codes[deployment.name]}
        releases = _entries(layout.releases(deployment.name))
        found += [code for code in releases if code.name not in names]
    return found


def _entries(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(directory.iterdir())
    return []
