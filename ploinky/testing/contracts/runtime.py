"""What anyone may rely on who is given a runtime.

Subclass `RuntimeContract` in a test module with the fixtures that it names; where there are
images, `ImageContract` too.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from ploinky.deploy_errors import ImageUnavailable, StartFailed
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.interfaces import IRuntime
from ploinky.testing.runtime import Script
from ploinky.values import DeploymentKey, Kind

Pause = Callable[[], Awaitable[None]]

SPEAKS = "echo hello; echo world >&2; exec sleep 300"
DIES = "echo oops; exit 3"
SUCCEEDS = "echo one; echo two >&2; echo three"
FAILS = "echo broken >&2; exit 7"
NEVER_ENDS = "echo begun; sleep 300"
COUNTED = 40
COUNTS = (
    f"i=0; while [ $i -lt {COUNTED} ]; do echo $i; i=$((i+1)); [ $((i % 10)) = 0 ] && sleep 0.15; done;"
    " echo last; exec sleep 300"
)
WORKS = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; exec sleep 300"

SCRIPTS = {
    SPEAKS: Script("hello\nworld\n"),
    DIES: Script("oops\n", 3),
    SUCCEEDS: Script("one\ntwo\nthree\n", 0),
    FAILS: Script("broken\n", 7),
    NEVER_ENDS: Script("begun\n"),
    COUNTS: Script("".join(f"{number}\n" for number in range(COUNTED)) + "last\n"),
}
"""What the commands above do, for a runtime that runs nothing."""

PATIENCE = 400
"""Pauses until something that must happen is called missing."""


def shell(command: str) -> tuple[str, ...]:
    """A shell command as an instance's command."""
    return ("/bin/sh", "-c", command)


def silent(line: str) -> None:
    """A report that nobody reads."""


def a_spec(instance: str, cluster: str, directory: Path, image: str, command: str) -> InstanceSpec:
    """A task agent that runs a shell command, with its directories made."""
    code, queue = directory / "code", directory / f"q-{instance}"
    code.mkdir(exist_ok=True)
    queue.mkdir(exist_ok=True)
    return InstanceSpec(
        instance=instance,
        deployment="d" * 12,
        release=7,
        cluster=cluster,
        key=DeploymentKey("localhost", "/demo"),
        agent="demo",
        kind=Kind.TASK,
        image=image,
        queue_directory=str(queue),
        code_directory=str(code),
        command=shell(command),
        environment={"GREETING": "s3cret-greeting"},
    )


class RuntimeContract:
    """Needs these fixtures.

    - `runtime`: the runtime, started.
    - ``next_runtime``: what a next leader on this host makes, given nothing.
    - `spec`: from ``a_spec(...)``, running `SPEAKS`, with ids that no other test uses.
    - ``refused``: a spec with the same ids that the runtime cannot start.
    - ``pause``: an async function that lets a moment pass.
    """

    async def _until(self, pause: Pause, found: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(PATIENCE):
            value = await found()
            if value:
                return value
            await pause()
        raise AssertionError("it did not happen")

    async def _status(self, runtime: Any, spec: InstanceSpec) -> InstanceStatus | None:
        statuses = await runtime.instances(spec.cluster)
        return next((each for each in statuses if each.instance == spec.instance), None)

    def test_is_a_runtime(self, runtime: Any) -> None:
        """It provides the whole of `IRuntime`."""
        assert verifyObject(IRuntime, runtime)
        assert isinstance(runtime.name, str)

    @pytest_twisted.ensureDeferred
    async def test_a_started_instance_is_found_by_its_cluster(
        self, runtime: Any, spec: InstanceSpec
    ) -> None:
        """It runs, says what it belongs to, and other clusters do not see it."""
        started = await runtime.start(spec)
        assert started.running
        found = await self._status(runtime, spec)
        assert found is not None
        assert (found.deployment, found.release, found.running) == ("d" * 12, 7, True)
        assert (found.restarts, found.exit_code, found.out_of_memory) == (0, None, False)
        assert await runtime.instances("another-cluster") == []

    @pytest_twisted.ensureDeferred
    async def test_output_has_what_an_instance_printed(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """Standard output and error, and of those no more lines than were asked for."""
        await runtime.start(spec)

        async def both() -> bool:
            said = (await runtime.output(spec.instance, 10)).split()
            return sorted(said) == ["hello", "world"]

        await self._until(pause, both)
        assert len((await runtime.output(spec.instance, 1)).split()) == 1

    @pytest_twisted.ensureDeferred
    async def test_a_removed_instance_is_gone(self, runtime: Any, spec: InstanceSpec) -> None:
        """Also for a second remove, which is no error, and its output is empty."""
        await runtime.start(spec)
        await runtime.remove(spec.instance, 0.0)
        assert await self._status(runtime, spec) is None
        assert await runtime.output(spec.instance, 10) == ""
        assert await runtime.remove(spec.instance, 0.0) == ""
        assert await runtime.usage(spec.instance) is None
        assert (await runtime.output_after(spec.instance, "", 10)).text == ""

    @pytest_twisted.ensureDeferred
    async def test_an_instance_that_is_removed_leaves_its_last_words(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """All that it printed, as far as it is kept."""
        await runtime.start(spec)

        async def said() -> bool:
            return len((await runtime.output(spec.instance, 10)).split()) == 2

        await self._until(pause, said)
        printed = await runtime.remove(spec.instance, 0.0)
        assert sorted(printed.split()) == ["hello", "world"]

    @pytest_twisted.ensureDeferred
    async def test_output_is_followed_part_by_part(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """Nothing twice, nothing left out, whatever is printed between two questions."""
        await runtime.start(attrs.evolve(spec, command=shell(COUNTS)))
        mark, said = "", ""

        async def all_of_it() -> bool:
            nonlocal mark, said
            part = await runtime.output_after(spec.instance, mark, 100)
            mark, said = part.mark, said + part.text
            return "last" in said

        await self._until(pause, all_of_it)
        assert said.split() == [*map(str, range(COUNTED)), "last"]
        assert (await runtime.output_after(spec.instance, mark, 100)).text == ""
        tail = await runtime.output_after(spec.instance, "", 2)
        assert tail.text.split() == [str(COUNTED - 1), "last"]

    @pytest_twisted.ensureDeferred
    async def test_what_a_running_instance_uses_is_known(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """Processor time that only grows, and memory."""
        await runtime.start(attrs.evolve(spec, command=shell(WORKS)))
        before = await runtime.usage(spec.instance)

        async def measured() -> bool:
            used = await runtime.usage(spec.instance)
            return bool(used is not None and used.memory_bytes > 0 and used.cpu_seconds > 0)

        await self._until(pause, measured)
        after = await runtime.usage(spec.instance)
        assert before is None or after.cpu_seconds >= before.cpu_seconds

    @pytest_twisted.ensureDeferred
    async def test_the_id_of_a_removed_instance_can_be_used_again(
        self, runtime: Any, spec: InstanceSpec
    ) -> None:
        """An instance that is started again keeps its id."""
        for _ in range(2):
            assert (await runtime.start(spec)).running
            await runtime.remove(spec.instance, 0.0)

    @pytest_twisted.ensureDeferred
    async def test_an_instance_that_dies_is_seen(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """With its exit code, or as one that the engine has started again; its output is kept."""
        await runtime.start(attrs.evolve(spec, command=shell(DIES)))

        async def dead() -> bool:
            found = await self._status(runtime, spec)
            assert found is not None
            return found.restarts > 0 or (not found.running and found.exit_code == 3)

        await self._until(pause, dead)
        assert "oops" in await runtime.output(spec.instance, 10)

    @pytest_twisted.ensureDeferred
    async def test_a_refused_start_leaves_nothing(
        self, runtime: Any, refused: InstanceSpec
    ) -> None:
        """The engine's reason comes back, and no instance."""
        with pytest.raises(StartFailed) as caught:
            await runtime.start(refused)
        assert caught.value.message
        assert "s3cret-greeting" not in caught.value.message
        assert await self._status(runtime, refused) is None

    @pytest_twisted.ensureDeferred
    async def test_a_cancelled_start_leaves_nothing(self, runtime: Any, spec: InstanceSpec) -> None:
        """Whether the engine had begun or not."""
        starting = Deferred.fromCoroutine(runtime.start(spec))
        starting.cancel()
        try:
            await starting
        except CancelledError:
            pass
        else:  # it was over before it could be cancelled
            await runtime.remove(spec.instance, 0.0)
        assert await self._status(runtime, spec) is None

    @pytest_twisted.ensureDeferred
    async def test_instances_survive_the_leader(
        self, runtime: Any, next_runtime: Callable[[], Any], spec: InstanceSpec, pause: Pause
    ) -> None:
        """A runtime made anew finds them, reads their output and removes them."""
        await runtime.start(spec)
        successor = next_runtime()
        found = await self._status(successor, spec)
        assert found is not None
        assert (found.deployment, found.release, found.running) == ("d" * 12, 7, True)

        async def said() -> bool:
            return "hello" in await successor.output(spec.instance, 10)

        await self._until(pause, said)
        await successor.remove(spec.instance, 0.0)
        assert await self._status(successor, spec) is None
        assert await self._status(runtime, spec) is None

    @pytest_twisted.ensureDeferred
    async def test_a_command_is_run_once(self, runtime: Any, spec: InstanceSpec) -> None:
        """Each line is reported, the whole comes back, and nothing is left."""
        lines: list[str] = []
        result = await runtime.run_once(spec, SUCCEEDS, 60.0, lines.append)
        assert result.exit_code == 0
        assert sorted(result.output.split()) == ["one", "three", "two"]
        assert sorted(lines) == ["one", "three", "two"]
        assert lines.index("one") < lines.index("three")
        assert await self._status(runtime, spec) is None

    @pytest_twisted.ensureDeferred
    async def test_a_command_that_fails_says_why(self, runtime: Any, spec: InstanceSpec) -> None:
        """Its exit code and output come back; failing is no exception."""
        result = await runtime.run_once(spec, FAILS, 60.0, silent)
        assert (result.exit_code, result.output.strip()) == (7, "broken")
        assert await self._status(runtime, spec) is None

    @pytest_twisted.ensureDeferred
    async def test_a_command_that_never_ends_is_ended(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """At its time-out, with exit code 124, and nothing of it is left."""
        lines: list[str] = []
        running = Deferred.fromCoroutine(runtime.run_once(spec, NEVER_ENDS, 5.0, lines.append))

        async def over() -> bool:
            return bool(running.called)

        await self._until(pause, over)
        result = await running
        assert result.exit_code == 124
        assert result.output.strip() == "begun"
        assert await self._status(runtime, spec) is None

    @pytest_twisted.ensureDeferred
    async def test_a_command_that_is_cancelled_is_ended(
        self, runtime: Any, spec: InstanceSpec, pause: Pause
    ) -> None:
        """Nothing of it is left."""
        lines: list[str] = []
        running = Deferred.fromCoroutine(runtime.run_once(spec, NEVER_ENDS, 60.0, lines.append))

        async def begun() -> bool:
            return "begun" in lines

        await self._until(pause, begun)
        running.cancel()
        with pytest.raises(CancelledError):
            await running
        assert await self._status(runtime, spec) is None


class ImageContract:
    """Needs `runtime`, and ``image``: one that is here."""

    @pytest_twisted.ensureDeferred
    async def test_an_image_that_is_here_is_taken(self, runtime: Any, image: str) -> None:
        """It is known by an id of its own, which stays the same."""
        identity = await runtime.prepare(image, silent)
        assert identity
        assert identity == await runtime.prepare(image, silent)

    @pytest_twisted.ensureDeferred
    @pytest.mark.parametrize("absent", ["nosuch.invalid/image:1", "no such image", "UPPER"])
    async def test_an_image_that_cannot_be_had_is_named(self, runtime: Any, absent: str) -> None:
        """In the error, along with the engine's own words."""
        with pytest.raises(ImageUnavailable) as caught:
            await runtime.prepare(absent, silent)
        assert absent in caught.value.message
