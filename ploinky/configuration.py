"""The settings in force, and how they change while the server runs.

Changes enter; ``config.json`` is replaced whole, or not at all.  It knows which settings are read
each time they are needed, and so hold at once, and knows nothing of who reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from twisted.internet.defer import DeferredLock

from ploinky.errors import PreconditionFailed, SettingsInvalid, ValidationFailed
from ploinky.settings import (
    Settings,
    config_path,
    fields,
    overriding,
    read_one,
    read_settings,
)
from ploinky.threads import Blocking

AT_ONCE = frozenset(
    {"taskTimeout", "maxBodyBytes", "maxContainers", "releasesKept", "logRetention"}
)
"""Settings that hold as soon as they are changed; the others from the next start."""


@frozen(kw_only=True)
class Change:
    """What became of a change of settings.

    Attributes:
        applied: In force now.
        needs_restart: Written down, and in force from the next start.
        overridden: Written down, and without effect as long as this wins: a variable or option.
    """

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    overridden: Mapping[str, str] = attrs.field(factory=dict)


class Configuration:
    """The settings of one data directory.

    Args:
        directory: Where ``.ploinky-cloud`` lies or will lie.
        environment: Usually ``os.environ``.
        options: Of the command line, by contract name.

    Attributes:
        settings: Those in force.

    Raises:
        SettingsInvalid: They do not fit.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str], options: Mapping[str, Any]
    ) -> None:
        self._environment = dict(environment)
        self._options = dict(options)
        self._changing = DeferredLock()
        self.settings = read_settings(directory, environment, options)
        self._path = config_path(self.settings.directory)
        self._file = _read(self._path)

    def origins(self) -> dict[str, str]:
        """Say where each setting comes from: ``default``, the file, a variable or an option."""
        winning = overriding(self._environment, self._options)
        found = {}
        for _, name, _ in fields():
            in_file = str(self._path) if name in self._file else "default"
            found[name] = winning[name][0] if name in winning else in_file
        return found

    def waiting(self) -> dict[str, Any]:
        """Give what is written down and holds from the next start, by name."""
        coming = self._coming(self._file)
        now = attrs.asdict(self.settings, recurse=False)
        then = attrs.asdict(coming, recurse=False)
        return {name: then[one] for one, name, _ in fields() if then[one] != now[one]}

    def revision(self) -> str:
        """Name what is written down, for ``If-Match``."""
        return hashlib.sha256(json.dumps(self._file, sort_keys=True).encode()).hexdigest()[:16]

    async def change(self, blocking: Blocking, changes: Mapping[str, Any], revision: str) -> Change:
        """Write changes down, and let those hold at once that can.

        Args:
            changes: By contract name; None: back to the default.
            revision: What the caller saw; ``""``: whatever is there.

        Raises:
            ValidationFailed: A value does not fit; nothing has changed.
            PreconditionFailed: They have been changed since.
            SettingsInvalid: The file cannot be written; nothing has changed.
        """
        async with self._changing:
            if revision and revision != self.revision():
                raise PreconditionFailed("the settings have changed since you saw them")
            _check(changes)
            document = {**self._file, **changes}
            document = {name: value for name, value in document.items() if value is not None}
            coming = self._coming(document)
            await blocking.run(_write, self._path, document)
            self._file = document
            return self._adopt(coming, changes)

    def _coming(self, document: Mapping[str, Any]) -> Settings:
        """Give the settings as they would be with this in the file."""
        known = {name: attribute for attribute, name, _ in fields()}
        winning = {
            name: value for name, (_, value) in overriding(self._environment, self._options).items()
        }
        values = {known[n]: read_one(n, v) for n, v in {**document, **winning}.items()}
        values.setdefault("workers", read_one("workers", "auto"))
        return Settings(directory=self.settings.directory, **values)

    def _adopt(self, coming: Settings, changes: Mapping[str, Any]) -> Change:
        origins = self.origins()
        known = {name: attribute for attribute, name, _ in fields()}
        free = [name for name in changes if origins[name] in ("default", str(self._path))]
        applied = [name for name in free if name in AT_ONCE]
        self.settings = attrs.evolve(
            self.settings, **{known[name]: getattr(coming, known[name]) for name in applied}
        )
        waiting = self.waiting()
        return Change(
            applied=tuple(name for name in free if name not in waiting),
            needs_restart=tuple(name for name in free if name in waiting),
            overridden={name: origins[name] for name in changes if name not in free},
        )


def _check(changes: Mapping[str, Any]) -> None:
    problems = {}
    for name, value in changes.items():
        try:
            if value is not None:
                read_one(name, value)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise ValidationFailed(problems)


def _read(path: Path) -> dict[str, Any]:
    """Give what is in the file, which has been read before and so can be."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    nested = document.get("settings")
    return nested if isinstance(nested, dict) else document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise SettingsInvalid([f"{path}: cannot be written: {error.strerror}"]) from error
