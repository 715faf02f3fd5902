"""Every runtime is held to the one contract."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from ploinky.runtime.assembly import assembled
from ploinky.runtime.facts import Connection
from ploinky.testing.contracts.runtime import (
    SCRIPTS,
    SPEAKS,
    ImageContract,
    RuntimeContract,
    a_spec,
)
from ploinky.testing.runtime import MemoryHost, MemoryRuntime
from ploinky.values import InstanceSpec

IMAGE = "node:18-alpine"


@pytest.fixture
def image() -> str:
    return IMAGE


@pytest.fixture
def spec(short_directory: Path) -> InstanceSpec:
    return a_spec(secrets.token_hex(6), secrets.token_hex(6), short_directory, IMAGE, SPEAKS)


async def moment() -> None:
    await deferLater(reactor, 0.05)


class TestMemory(RuntimeContract, ImageContract):
    @pytest.fixture
    def host(self) -> MemoryHost:
        return MemoryHost(scripts=dict(SCRIPTS))

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def runtime(self, clock: Clock, host: MemoryHost) -> MemoryRuntime:
        return MemoryRuntime(clock, host)

    @pytest.fixture
    def next_runtime(self, clock: Clock, host: MemoryHost) -> Callable[[], MemoryRuntime]:
        return lambda: MemoryRuntime(clock, host)

    @pytest.fixture
    def refused(self, spec: InstanceSpec, host: MemoryHost) -> InstanceSpec:
        host.refusal = "no"
        return spec

    @pytest.fixture
    def pause(self, clock: Clock) -> Callable[[], Awaitable[None]]:
        async def advance() -> None:
            clock.advance(0.05)

        return advance


class Engine(RuntimeContract, ImageContract):
    title: str

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def make(self, url: str, short_directory: Path) -> Iterator[Callable[[], Any]]:
        made = []

        def engine() -> Any:
            built = assembled(reactor, self.title, Connection(url), short_directory)
            built.startService()
            made.append(built)
            return built

        yield engine
        for each in made:
            each.stopService()

    @pytest_twisted.async_yield_fixture
    async def runtime(self, make: Callable[[], Any], spec: InstanceSpec) -> AsyncIterator[Any]:
        engine = make()
        yield engine
        for left in await engine.instances(spec.cluster):
            await engine.remove(left.instance, 0.0)

    @pytest.fixture
    def next_runtime(self, make: Callable[[], Any]) -> Callable[[], Any]:
        return make

    @pytest.fixture
    def refused(self, spec: InstanceSpec) -> InstanceSpec:
        return attrs.evolve(spec, user="nosuchuser")

    @pytest.fixture
    def pause(self) -> Callable[[], Awaitable[None]]:
        return moment

    @pytest_twisted.ensureDeferred
    async def test_what_a_command_writes_is_ours(self, runtime: Any, spec: InstanceSpec) -> None:
        """So that a release can be removed again, whoever runs the server."""
        result = await runtime.run_once(spec, "echo x > written && id -u", 60.0, lambda line: None)
        assert result.exit_code == 0, result.output
        written = Path(spec.code_directory, "written")
        assert written.stat().st_uid == os.getuid()


@pytest.mark.engine("docker")
class TestDocker(Engine):
    title = "Docker"

    @pytest.fixture
    def url(self, docker_url: str) -> str:
        return docker_url


@pytest.mark.engine("podman")
class TestPodman(Engine):
    title = "Podman"

    @pytest.fixture
    def url(self, podman_url: str) -> str:
        return podman_url
