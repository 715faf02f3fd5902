"""Every runtime is held to the one contract."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import docker
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from zope.interface.verify import verifyObject

from ploinky.deploy_errors import StartFailed
from ploinky.instance_values import InstanceSpec, Resources, Volume
from ploinky.leader_interfaces import IRuntimeVolumes, IVolumeCopy
from ploinky.runtime import places, processes
from ploinky.runtime.assembly import assembled
from ploinky.runtime.facts import Connection
from ploinky.runtime.process import ProcessRuntime
from ploinky.runtime.sandbox import Sandbox, find_sandbox
from ploinky.testing.contracts.runtime import (
    SCRIPTS,
    SPEAKS,
    ImageContract,
    RuntimeContract,
    a_spec,
    shell,
)
from ploinky.testing.runtime import MemoryHost, MemoryRuntime
from ploinky.values import Kind

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


class Process(RuntimeContract):
    """The process runtime, with and without bubblewrap."""

    def sandbox(self, directory: Path) -> Sandbox | None:
        raise NotImplementedError

    @pytest.fixture
    def make(self, short_directory: Path) -> Iterator[Callable[[], Any]]:
        made = []

        def build() -> Any:
            built = ProcessRuntime(
                reactor,
                places.agentcore_directory(),
                short_directory / "p",
                short_directory / "deployments",
                os.environ,
                self.sandbox(short_directory),
            )
            built.startService()
            made.append(built)
            return built

        yield build
        for each in made:
            each.stopService()

    @pytest_twisted.async_yield_fixture
    async def runtime(self, make: Callable[[], Any], spec: InstanceSpec) -> AsyncIterator[Any]:
        built = make()
        yield built
        for left in await built.instances(spec.cluster):
            await built.remove(left.instance, 0.0)
        assert processes.members(cluster=spec.cluster) == []

    @pytest.fixture
    def next_runtime(self, make: Callable[[], Any]) -> Callable[[], Any]:
        return make

    @pytest.fixture
    def refused(self, spec: InstanceSpec) -> InstanceSpec:
        return attrs.evolve(spec, user="4711")

    @pytest.fixture
    def pause(self) -> Callable[[], Awaitable[None]]:
        return moment

    @pytest_twisted.ensureDeferred
    async def test_images_are_ignored_aloud(self, runtime: Any) -> None:
        """Whoever deploys one is told."""
        lines: list[str] = []
        assert await runtime.prepare("node:18-alpine", lines.append) == "node:18-alpine"
        assert "node:18-alpine is ignored" in lines[0]

    @pytest_twisted.ensureDeferred
    async def test_a_service_needs_a_command(self, runtime: Any, spec: InstanceSpec) -> None:
        """There is no image whose command could be run; the refusal says what to do."""
        with pytest.raises(StartFailed, match="set `command`"):
            await runtime.start(attrs.evolve(spec, kind=Kind.SERVICE, command=()))

    @pytest_twisted.ensureDeferred
    async def test_a_volume_that_an_engine_has_to_fill_is_not_begun_empty(
        self, runtime: Any, spec: InstanceSpec, short_directory: Path
    ) -> None:
        """It came out of a backup; who starts it here would see nothing of what it holds."""
        deployments = short_directory / "deployments"
        restored = places.RestoredVolume.of(deployments, spec.deployment, "data")
        restored.directory.mkdir(parents=True)
        restored.tar.touch()
        volumes = (Volume("data", "/data"),)
        with pytest.raises(StartFailed, match="use docker or podman"):
            await runtime.start(attrs.evolve(spec, kind=Kind.SERVICE, volumes=volumes))

    @pytest_twisted.ensureDeferred
    async def test_the_servers_environment_is_not_inherited(
        self, runtime: Any, spec: InstanceSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An agent sees its own variables, and no secret of the server's."""
        monkeypatch.setenv("PLOINKY_API_KEY", "pk_of_the_server")
        result = await runtime.run_once(spec, "env", 60.0, lambda line: None)
        assert "GREETING=s3cret-greeting" in result.output
        assert "PLOINKY_DOMAIN=localhost" in result.output
        assert "pk_of_the_server" not in result.output

    @pytest_twisted.ensureDeferred
    async def test_a_service_is_given_a_free_port(
        self, runtime: Any, spec: InstanceSpec, pause: Callable[[], Awaitable[None]]
    ) -> None:
        """In `$PORT`, and it is reached there: two releases can run at once."""
        command = shell("echo port=$PORT; exec sleep 300")
        service = attrs.evolve(spec, kind=Kind.SERVICE, command=command, port=80)
        status = await runtime.start(service)
        assert status.address.host == "127.0.0.1"

        async def said() -> bool:
            return f"port={status.address.port}" in await runtime.output(spec.instance, 10)

        await self._until(pause, said)

    @pytest_twisted.ensureDeferred
    async def test_a_memory_limit_holds(self, runtime: Any, spec: InstanceSpec) -> None:
        """A program that takes more than its limit fails."""
        limited = attrs.evolve(spec, resources=Resources(memory_bytes=64 * 1024 * 1024))
        hungry = "python3 -c 'print(len(bytearray(256 * 1024 * 1024)))'"
        result = await runtime.run_once(limited, hungry, 60.0, lambda line: None)
        assert result.exit_code != 0
        assert "MemoryError" in result.output

    @pytest_twisted.ensureDeferred
    async def test_what_an_agent_started_goes_with_it(
        self, runtime: Any, spec: InstanceSpec, pause: Callable[[], Awaitable[None]]
    ) -> None:
        """Also what left its session."""
        escaping = shell("setsid sleep 300 & echo begun; wait")
        await runtime.start(attrs.evolve(spec, command=escaping))

        async def begun() -> bool:
            return "begun" in await runtime.output(spec.instance, 10)

        await self._until(pause, begun)
        await runtime.remove(spec.instance, 0.2)
        assert processes.members(instance=spec.instance) == []

    @pytest_twisted.ensureDeferred
    async def test_an_agent_may_finish_before_it_is_killed(
        self, runtime: Any, spec: InstanceSpec, pause: Callable[[], Awaitable[None]]
    ) -> None:
        """It gets SIGTERM, and its grace."""
        tidy = "trap 'echo tidied > tidied; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
        await runtime.start(attrs.evolve(spec, command=shell(tidy)))

        async def begun() -> bool:
            return "begun" in await runtime.output(spec.instance, 10)

        await self._until(pause, begun)
        await runtime.remove(spec.instance, 10.0)
        assert Path(spec.code_directory, "tidied").exists()


class TestPlainProcess(Process):
    def sandbox(self, directory: Path) -> Sandbox | None:
        return None


@pytest.mark.program("bwrap")
class TestSandboxedProcess(Process):
    def sandbox(self, directory: Path) -> Sandbox | None:
        found, problem = find_sandbox(os.environ, [str(directory)])
        assert found is not None, problem
        return found

    @pytest_twisted.ensureDeferred
    async def test_an_agent_sees_no_more_of_this_host_than_it_needs(
        self, runtime: Any, spec: InstanceSpec, short_directory: Path
    ) -> None:
        """Not the server's data, no home, no other process; and it can change nothing but its own."""
        secret = short_directory / "ploinky.sqlite"
        secret.write_text("secret")
        looks = (
            f"cat {secret} /etc/shadow; ls ~root /home /run /var; ls -d /proc/[0-9]* | wc -l;"
            "touch /usr/x /x; touch /agent/mine /agent/.ploinky/queue/mine && ls /agentCore; touch /agentCore/x"
        )
        result = await runtime.run_once(spec, looks, 60.0, lambda line: None)
        assert "secret" not in result.output
        assert ":99999:" not in result.output
        assert "run.sh" in result.output
        assert result.output.count("Read-only file system") == 3
        seen = [int(each) for each in result.output.split() if each.isdigit()]
        assert seen
        assert seen[0] < 8
        assert Path(spec.code_directory, "mine").exists()
        assert Path(spec.queue_directory, "mine").exists()

    @pytest_twisted.ensureDeferred
    async def test_a_volume_outlives_its_instance(self, runtime: Any, spec: InstanceSpec) -> None:
        """What one instance wrote there the next one reads."""
        keeps = attrs.evolve(spec, volumes=(Volume("notes", "/notes"),))
        await runtime.run_once(keeps, "echo kept > /notes/a", 60.0, lambda line: None)
        again = await runtime.run_once(keeps, "cat /notes/a", 60.0, lambda line: None)
        assert again.output == "kept\n"


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

    @pytest_twisted.ensureDeferred
    async def test_a_volume_is_copied_and_filled_again(
        self, runtime: Any, spec: InstanceSpec, short_directory: Path, url: str
    ) -> None:
        """With owners, modes and links, its own directory's too, and names of any kind."""
        service = attrs.evolve(
            spec, kind=Kind.SERVICE, image=IMAGE, port=80, volumes=(Volume("data", "/etc/apk"),)
        )
        fills = (
            "cd /etc/apk && rm -rf * && mkdir proc dev && echo kept > proc/note && ln -s proc/note link"
            " && chown -R 70:71 . && chown -h 70:71 link && chmod 700 . && chmod 640 proc/note"
            " && echo done; exec sleep 300"
        )
        looks = "cd /etc/apk && stat -c '%n %u:%g %a' . * proc/note && cat link; echo done; exec sleep 300"
        first = await self._said(runtime, attrs.evolve(service, command=shell(fills)))
        assert "done" in first
        before = await self._said(runtime, attrs.evolve(service, command=shell(looks)))
        assert "proc/note 70:71 640" in before
        assert ". 70:71 700" in before

        assert verifyObject(IRuntimeVolumes, runtime)
        copy = await runtime.open_volume(service, "data")
        assert verifyObject(IVolumeCopy, copy)
        pieces = []
        while piece := await copy.read():
            pieces.append(piece)
        await copy.close()
        assert await runtime.instances(spec.cluster) == []
        assert await runtime.open_volume(service, "absent") is None

        restored = places.RestoredVolume.of(
            short_directory / "deployments", spec.deployment, "data"
        )
        restored.directory.mkdir(parents=True)
        restored.name_file.write_text(f"ploinky-{spec.deployment}-data-restored")
        restored.tar.write_bytes(b"".join(pieces))
        with closing(
            docker.APIClient(base_url=url)
        ) as client:  # as one killed in the middle left it
            client.create_volume(restored.name())
        after = await self._said(runtime, attrs.evolve(service, command=shell(looks)))
        assert after == before
        assert not restored.tar.exists()
        with closing(docker.APIClient(base_url=url)) as client:
            for name in ("data", "data-restored"):
                client.remove_volume(f"ploinky-{spec.deployment}-{name}")

    async def _said(self, runtime: Any, spec: InstanceSpec) -> str:
        """Run an instance until it says that it is done, and give what it said."""
        await runtime.start(spec)
        said = ""
        while "done" not in said:
            await moment()
            said = await runtime.output(spec.instance, 50)
        await runtime.remove(spec.instance, 0.0)
        return said


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
