"""All deployments of this server, as the manager holds them.

Requests, what recovery found, and pieces of work enter; entries, turns and what users see leave.
It does not change what runs, and does no I/O: only the manager and its parts do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IReactorTime

from ploinky.deployment.board import RouteBoard
from ploinky.deployment.entries import Entry
from ploinky.deployment.history import Mask
from ploinky.deployment.jobs import Job, Turn, Turns
from ploinky.deployment.life import life_machine
from ploinky.deployment.recovery import Survivor
from ploinky.deployment.releases import Say
from ploinky.deployment.spec import Plans
from ploinky.deployment.taken import Taken
from ploinky.errors import Conflict, NotFound
from ploinky.interfaces import Report
from ploinky.values import Deployment, DeploymentKey, DeploymentView, DeployRequest


class Register:
    """Finds, shows and tells of deployments, gives them their turns, and counts their places.

    Args:
        clock: Tells the time.
        new_id: Gives ids for deployments.
        board: Asked which instances are well, and which domains are disabled.
    """

    def __init__(
        self, clock: IReactorTime, new_id: Callable[[], str], board: RouteBoard, plans: Plans
    ) -> None:
        self._clock = clock
        self._new_id = new_id
        self._board = board
        self._plans = plans
        self._new_life = life_machine()
        self._entries: dict[DeploymentKey, Entry] = {}
        self._by_id: dict[str, Entry] = {}
        self._taken = Taken()
        self._turns: Turns[DeploymentKey] = Turns()
        self._watchers: list[Callable[[DeploymentKey, str], None]] = []

    # --- entries ----------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Give all of them, ordered by key."""
        # By its parts: keys compare through Python code, ten times as slow.
        keys = sorted(self._entries, key=lambda key: (key.domain, key.path))
        return [self._entries[key] for key in keys]

    def existing(self, key: DeploymentKey) -> Entry:
        """Give what is deployed there.

        Raises:
            NotFound: Nothing is.
        """
        if key not in self._entries:
            raise NotFound(f"nothing is deployed at {key}; see p-cli cloud deployments")
        return self._entries[key]

    def of_id(self, deployment_id: str) -> Entry | None:
        """Give the deployment of an id; None where there is none."""
        return self._by_id.get(deployment_id)

    def enter(self, request: DeployRequest) -> Entry:
        """Give what is deployed where a request wants to, or a new entry."""
        return self._entries.get(request.key) or self._new_entry(request)

    def _new_entry(self, request: DeployRequest) -> Entry:
        now = self._clock.seconds()
        deployment = Deployment(
            self._new_id(), request.key, request.agent, created_at=now, updated_at=now
        )
        return self._add(Entry(deployment, self._new_life(request.key)))

    def recovered(self, survivor: Survivor) -> Entry:
        """Enter a deployment that an earlier server left; its life is still to be told so."""
        deployment = survivor.deployment
        life = self._new_life(deployment.key)
        entry = Entry(deployment, life, survivor.release, survivor.failed, survivor.newest)
        entry.on_record = True
        return self._add(entry)

    def _add(self, entry: Entry) -> Entry:
        self._entries[entry.key] = entry
        self._by_id[entry.id] = entry
        self._taken.look_at(entry)
        return entry

    def has(self, entry: Entry) -> bool:
        """Tell whether it is still what is deployed at its key."""
        return self._entries.get(entry.key) is entry

    def strike(self, entry: Entry) -> None:
        """Take it out."""
        del self._entries[entry.key]
        del self._by_id[entry.id]
        self._taken.strike(entry)

    def take_places(self, entry: Entry, wanted: int) -> None:
        """Keep places for so many instances of it until its work ends.

        Raises:
            Conflict: There is no room for them.
        """
        most = self._plans.settings.max_containers
        others = self._taken.but(entry)
        if others + wanted > most:
            raise Conflict(
                f"{entry.key} wants {wanted} instances, and {others} of at most {most} are taken;"
                " stop or remove a deployment, or raise the setting maxContainers"
            )
        entry.asked = wanted

    # --- work on them, and what is seen of it -----------------------------------

    def turn(self, key: DeploymentKey) -> Turn[DeploymentKey]:
        """Give an async context manager that waits for this key's turn; see `Turns.of`."""
        return self._turns.of(key)

    @contextlib.contextmanager
    def working(
        self, entry: Entry, job: Job, report: Report, mask: Mask | None = None
    ) -> Iterator[Say]:
        """Show that a job has its turn, what it says (masked), and that it has ended."""

        def told(line: str) -> None:
            report(line)
            self.tell(entry.key, line)

        self._taken.look_at(entry)
        try:
            with entry.working(job, mask.report(told) if mask else told) as say:
                yield say
        finally:
            self.tell(entry.key)

    def view(self, entry: Entry) -> DeploymentView:
        """Show it as it stands now."""
        healthy = len(self._board.healthy(self._board.targets(entry.id)))
        return entry.view(healthy, is_hidden=self._board.is_hidden(entry.key))

    def watch(self, changed: Callable[[DeploymentKey, str], None]) -> None:
        """See `IDeploymentManager.watch`."""
        self._watchers.append(changed)

    def tell(self, key: DeploymentKey, line: str = "") -> None:
        """Tell all watchers that a deployment has changed."""
        for changed in self._watchers:
            changed(key, line)
