from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ploinky.store.database import Database
from ploinky.threads import Blocking


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will lie."""
    return tmp_path / "ploinky.sqlite"


@pytest.fixture
def database_at() -> Iterator[Callable[[Path], Database]]:
    """Gives databases that are closed when the test is over."""
    blocking = Blocking(reactor, 1, "store")
    blocking.start()
    made: list[Database] = []

    def make(path: Path) -> Database:
        made.append(Database(path, blocking))
        return made[-1]

    yield make
    for database in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(database.close()))
    blocking.stop()
