"""``backup``: everything that this server is, as one file, while it serves."""

from __future__ import annotations

import time
from typing import Annotated

from attrs import frozen
from twisted.logger import Logger

from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.shapes import SECRET
from ploinky.api.streams import Outlet, Stream
from ploinky.backup.envelope import LEAST_PASSPHRASE
from ploinky.backup.making import Wanted
from ploinky.errors import Conflict, PloinkyError, ValidationFailed

SEALED, PLAIN = "application/octet-stream", "application/gzip"


@frozen
class BackupForm:
    """What the backup is to be like.

    Attributes:
        passphrase: To seal it under, of 12 characters or more; without one whoever has the file
            may read it, and the master key is not in it.
        volumes: Whether volumes are wanted.
    """

    passphrase: Annotated[str, SECRET] = ""
    volumes: bool = True

    def wanted(self) -> Wanted:
        """Give what is wanted.

        Raises:
            ValidationFailed: The passphrase is short.
        """
        if self.passphrase and len(self.passphrase) < LEAST_PASSPHRASE:
            raise ValidationFailed(
                {"passphrase": f"expected {LEAST_PASSPHRASE} characters or more, or none"}
            )
        return Wanted(self.passphrase, self.volumes)


class BackupRoutes:
    """Copies, changes nothing; who took a copy is in the audit trail all the same."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "backup",
                "POST",
                f"{API}/backup",
                self._backup,
                takes=BackupForm,
                gives=(PLAIN, SEALED),
                errors=(Conflict,),
            )
        ]

    async def _backup(self, call: Call) -> Stream:
        """Give a backup; what fails midway is told in it, where ``p-cli`` reads it."""
        wanted = call.form(BackupForm).wanted()
        self._its.backups.see_free()
        call.subjects.append("sealed" if wanted.passphrase else "without the master key")

        async def produce(outlet: Outlet) -> None:
            try:
                await self._its.backups.write(wanted, outlet.write)
            except PloinkyError as error:
                self._log.warn("a backup failed: {why}", why=error.message)

        return Stream(
            SEALED if wanted.passphrase else PLAIN,
            produce,
            (("Content-Disposition", f'attachment; filename="{self._name(wanted)}"'),),
        )

    def _name(self, wanted: Wanted) -> str:
        now = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._its.clock.seconds()))
        return f"ploinky-{now}.{'backup' if wanted.passphrase else 'tar.gz'}"
