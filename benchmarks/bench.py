"""What every row is given."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from benchmarks import load
from benchmarks.children import Children
from benchmarks.load import Run
from benchmarks.machine import GATEWAY_CORE, LOAD_CORE
from benchmarks.product import Product
from benchmarks.rivals import Backend, Gateway, start_backend


@frozen
class Bench:
    """A context: a new directory, and what is started in it.

    Attributes:
        seconds: Of one run.
        rounds: Of each comparison.
        directory: On disk, with a short path.
    """

    seconds: int
    rounds: int
    directory: Path
    children: Children
    _stack: ExitStack

    @classmethod
    def open(cls, seconds: int, rounds: int) -> Bench:
        """Make the directory."""
        stack = ExitStack()
        directory = Path(tempfile.mkdtemp(prefix="plb"))
        directory.chmod(0o711)  # workers of a gateway that root started have another user
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return cls(seconds, rounds, directory, stack.enter_context(Children(directory)), stack)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def product(
        self,
        name: str = "server",
        runtime: str = "process",
        workers: int = 1,
        cores: Sequence[int] = GATEWAY_CORE,
    ) -> Product:
        """Make a server; the caller starts it."""
        return Product(self.children, self.directory / name, runtime, workers, cores)

    def backend(self) -> Backend:
        """Start the backend."""
        return start_backend(self.children)

    def memory_directory(self) -> Path:
        """Give a new directory in memory."""
        place = Path(tempfile.mkdtemp(prefix="plb", dir=os.environ.get("BENCH_TMPFS", "/dev/shm")))
        self._stack.callback(shutil.rmtree, place, ignore_errors=True)
        return place

    def wrk(
        self,
        gateway: Gateway,
        backend: Backend,
        connections: int,
        kind: Sequence[str] = ("same",),
        cores: Sequence[int] = LOAD_CORE,
    ) -> Run:
        """Load a gateway once."""
        watched = load.watching(gateway.processes(), backend.child.processes())
        return load.wrk(
            gateway.url, gateway.headers, watched, connections, self.seconds, kind, cores
        )
