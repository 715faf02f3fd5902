"""Every deployment by its key, and who is told of what becomes of it.

Entries enter; views of them leave, and lines of progress go to whoever watches.  What is done to
an entry is the manager's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ploinky.deployment.board import RouteBoard
from ploinky.deployment.entries import Entry
from ploinky.deployment.history import Mask
from ploinky.deployment.jobs import Job
from ploinky.deployment.releases import Say
from ploinky.errors import NotFound
from ploinky.interfaces import Report
from ploinky.values import DeploymentKey, DeploymentView


class Register:
    """See the module.

    Args:
        board: Knows what of a deployment is healthy, and what is hidden.

    Attributes:
        entries: All of them.
    """

    def __init__(self, board: RouteBoard) -> None:
        self._board = board
        self._watchers: list[Callable[[DeploymentKey, str], None]] = []
        self.entries: dict[DeploymentKey, Entry] = {}

    def existing(self, key: DeploymentKey) -> Entry:
        """Give the entry of a deployment.

        Raises:
            NotFound: There is none.
        """
        if key not in self.entries:
            raise NotFound(f"nothing is deployed at {key}; see p-cli cloud deployments")
        return self.entries[key]

    def view(self, entry: Entry) -> DeploymentView:
        """Show a deployment as it is now."""
        healthy = len(self._board.healthy(self._board.targets(entry.id)))
        return entry.view(healthy, is_hidden=self._board.is_hidden(entry.key))

    def views(self) -> list[DeploymentView]:
        """Show all of them, in the order of their keys."""
        return [self.view(self.entries[key]) for key in sorted(self.entries)]

    def watch(self, changed: Callable[[DeploymentKey, str], None]) -> None:
        """See `ploinky.interfaces.IDeploymentManager.watch`."""
        self._watchers.append(changed)

    def tell(self, key: DeploymentKey, line: str = "") -> None:
        """Tell who watches that something has become of a deployment, or is being done."""
        for changed in self._watchers:
            changed(key, line)

    @contextlib.contextmanager
    def working(
        self, entry: Entry, job: Job, report: Report, mask: Mask | None = None
    ) -> Iterator[Say]:
        """Show that a job has its turn, what it says (masked), and that it has ended."""

        def told(line: str) -> None:
            report(line)
            self.tell(entry.key, line)

        try:
            with entry.working(job, mask.report(told) if mask else told) as say:
                yield say
        finally:
            self.tell(entry.key)
