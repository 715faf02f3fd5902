"""What a container engine's volumes hold: read for a backup, and filled again from one.

Docker copies a volume through a container that is created and never started, whatever its image.
Podman's way to do the same loses owners, modes and whatever is called ``dev`` or ``proc`` (4.3),
so there the volume's own directory is packed, in Podman's user namespace where that is another.
Blocking: everything here is called in a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.errors
from attrs import evolve
from docker.types import Mount
from zope.interface import implementer

from ploinky.deploy_errors import EngineError
from ploinky.instance_values import InstanceSpec
from ploinky.leader_interfaces import IVolumeCopy
from ploinky.packing import PIECE_BYTES, TOP
from ploinky.runtime import blueprint
from ploinky.runtime.blueprint import Surroundings
from ploinky.runtime.facts import ApiClient, EngineFacts
from ploinky.runtime.places import RestoredVolume
from ploinky.runtime.waiting import uncut
from ploinky.threads import Blocking
from ploinky.values import Kind

COPY_SECONDS = 3600.0
"""A client's patience with a copy: an engine is silent while it goes through many small files."""

_ABOVE = "/.ploinky-volume"
_NO_PROGRAM = ["/nothing"]
_PACK = (
    "import runpy, sys; runpy.run_module('ploinky.packing', run_name='__main__', alter_sys=True)"
)


class EngineVolumes:
    """The volumes of one engine.

    Args:
        connect: Gives a client that waits for so many seconds; it is closed here.
    """

    def __init__(self, connect: Callable[[float], ApiClient], surroundings: Surroundings) -> None:
        self._connect = connect
        self._surroundings = surroundings
        self._filling = threading.Lock()

    def prepare(self, client: ApiClient, found: EngineFacts, spec: InstanceSpec) -> None:
        """See that a service's volumes are there, and hold what came out of a backup.

        Raises:
            EngineError: One cannot be filled; the instance must not start.
        """
        if spec.kind is Kind.TASK:
            return
        for volume in spec.volumes:
            restored = self._restored(spec, volume.name)
            if restored.tar.exists():
                with self._filling:  # of two replicas that begin at once, one fills
                    self._refill(found, spec, volume.name, restored.tar)
            name = blueprint.volume_name(self._surroundings, spec, volume.name)
            client.create_volume(name, labels=blueprint.labels(spec))

    def _refill(self, found: EngineFacts, spec: InstanceSpec, volume: str, tar: Path) -> None:
        """Fill a new volume.

        Killed in the middle it begins anew: the volume's name is known to nobody else, and what
        it is filled from goes only when it is full.
        """
        if not tar.exists():
            return
        name = blueprint.volume_name(self._surroundings, spec, volume)
        with contextlib.closing(self._connect(COPY_SECONDS)) as client:
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_volume(name, force=True)
            client.create_volume(name, labels=blueprint.labels(spec))
            _fill(client, found, spec, name, tar)
        os.sync()
        tar.unlink()

    def pieces(self, found: EngineFacts, spec: InstanceSpec, volume: str) -> Iterator[bytes] | None:
        """Begin to read a volume: gives its tar, in pieces; None where there is no such volume.

        Whoever has it closes the iterator: it may own a container or a child.
        """
        restored = self._restored(spec, volume)
        if restored.tar.exists():  # nothing has started since it was restored
            return _file(restored.tar)
        name = blueprint.volume_name(self._surroundings, spec, volume)
        with contextlib.closing(self._connect(COPY_SECONDS)) as client:
            try:
                described = client.inspect_volume(name)
            except docker.errors.NotFound:
                return None
        if found.podman:
            return _packed(found, Path(described["Mountpoint"]))
        return self._archived(spec, name)

    def _archived(self, spec: InstanceSpec, name: str) -> Iterator[bytes]:
        with (
            contextlib.closing(self._connect(COPY_SECONDS)) as client,
            _container(client, spec, name, read_only=True) as container,
        ):
            stream, _ = client.get_archive(container, f"{_ABOVE}/{TOP}", chunk_size=PIECE_BYTES)
            yield from stream

    def _restored(self, spec: InstanceSpec, volume: str) -> RestoredVolume:
        return RestoredVolume.of(self._surroundings.deployments, spec.deployment, volume)


@implementer(IVolumeCopy)
class VolumeCopy:
    """`IVolumeCopy`, read in an engine's threads.

    Args:
        translated: Turns what the SDK raises into this house's errors.
    """

    def __init__(
        self,
        blocking: Blocking,
        translated: Callable[[], contextlib.AbstractContextManager[None]],
        pieces: Iterator[bytes],
    ) -> None:
        self._blocking = blocking
        self._translated = translated
        self._pieces = pieces

    async def read(self) -> bytes:
        """See `IVolumeCopy`.  Cancelling waits for the piece in hand."""
        return await uncut(self._blocking.run(self._next))

    def _next(self) -> bytes:
        with self._translated():
            return next(self._pieces, b"")

    async def close(self) -> None:
        """See `IVolumeCopy`."""
        await uncut(self._blocking.run(self._close))

    def _close(self) -> None:
        with self._translated():
            self._pieces.close()  # type: ignore[attr-defined]


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _fill(client: ApiClient, found: EngineFacts, spec: InstanceSpec, name: str, tar: Path) -> None:
    with tar.open("rb") as file:
        if found.podman:
            # The first container that is started with a volume makes its directory root's own: let
            # that be one whose program is missing.
            with (
                _container(client, spec, name) as container,
                contextlib.suppress(docker.errors.APIError),
            ):
                client.start(container)
            place = client.inspect_volume(name)["Mountpoint"]
            with _packing(found, "unpack", Path(place), stdin=file):
                pass
        else:
            with _container(client, spec, name) as container:
                # Above the volume: only so does its own directory get its owner and mode.
                client.put_archive(container, _ABOVE, file)


@contextlib.contextmanager
def _container(
    client: ApiClient, spec: InstanceSpec, name: str, read_only: bool = False
) -> Iterator[str]:
    """Create a container that has a volume and never runs.

    It bears the labels of an instance of its own: should we be killed, the next leader finds and
    removes it.
    """
    own = evolve(spec, instance=secrets.token_hex(6))
    mount = Mount(f"{_ABOVE}/{TOP}", name, type="volume", read_only=read_only, no_copy=True)
    host = client.create_host_config(mounts=[mount], network_mode="none")
    container: str = client.create_container(
        spec.image,
        entrypoint=_NO_PROGRAM,  # not the image's own, which may change what is in the volume
        host_config=host,
        labels=blueprint.labels(own),
        name=f"{blueprint.container_name(own.instance)}-volume",
    )["Id"]
    try:
        yield container
    finally:
        client.remove_container(container, force=True, v=True)  # volumes without a name, that is


def _packed(found: EngineFacts, place: Path) -> Iterator[bytes]:
    with _packing(found, "pack", place, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while piece := child.stdout.read(PIECE_BYTES):
            yield piece


@contextlib.contextmanager
def _packing(
    found: EngineFacts, work: str, place: Path, **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ploinky.packing` on a volume's directory, as who may read and write all of it.

    Leaving waits for its end; what is not seen through is killed.

    Raises:
        EngineError: It failed.
    """
    if not found.same_machine:
        raise EngineError("Podman: volumes can be copied only where Podman runs on this machine")
    argv = [sys.executable, "-c", _PACK, work, str(place)]
    if found.rootless:
        argv = ["podman", "unshare", *argv]
    paths = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)
    child = subprocess.Popen(
        argv,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        cwd="/",
    )
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        _, said = child.communicate()
    if child.returncode:
        words = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise EngineError(f"Podman: a volume cannot be copied: {words[-1]}")
