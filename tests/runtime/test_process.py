"""What only the process runtime can be held to."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from ploinky.deploy_errors import StartFailed
from ploinky.instance_values import InstanceSpec, Resources
from ploinky.runtime import output, processes
from ploinky.runtime.sandbox import find_sandbox
from ploinky.testing.contracts.runtime import a_spec, shell
from tests.runtime.conftest import SANDBOX, make_runtime

LEADER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from ploinky.testing.contracts.runtime import a_spec
    from tests.runtime.conftest import make_runtime

    kind, directory, instance, cluster, command = sys.argv[1:]

    async def lead():
        runtime = make_runtime(kind, Path(directory))
        runtime.startService()
        await runtime.start(a_spec(instance, cluster, Path(directory), "", command))
        print("started", flush=True)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(lead()).addErrback(print))
    reactor.run()
""")

kinds = pytest.mark.parametrize("kind", ["plain", SANDBOX])


@pytest.fixture
def spec(short_directory: Path) -> InstanceSpec:
    command = "echo hello; exec sleep 300"
    return a_spec(secrets.token_hex(6), secrets.token_hex(6), short_directory, "", command)


@pytest_twisted.async_yield_fixture
async def runtime(kind: str, spec: InstanceSpec, short_directory: Path) -> AsyncIterator[Any]:
    made = make_runtime(kind, short_directory)
    made.startService()
    yield made
    for left in await made.instances(spec.cluster):
        await made.remove(left.instance, 0.0)
    made.stopService()
    assert processes.members(cluster=spec.cluster) == []


@kinds
@pytest_twisted.ensureDeferred
async def test_an_agent_outlives_a_leader_that_is_killed(
    kind: str, runtime: Any, spec: InstanceSpec, short_directory: Path
) -> None:
    """With -9: the next leader finds it, reads its output, sees it end, and ends it."""
    arguments = [kind, str(short_directory), spec.instance, spec.cluster, spec.command[-1]]
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, *arguments],
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
        },
    )
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"started\n"
    leader.kill()
    leader.wait()
    leader.stdout.close()
    (found,) = await runtime.instances(spec.cluster)
    assert (found.instance, found.deployment, found.release) == (spec.instance, "d" * 12, 7)
    assert found.running
    while await runtime.output(spec.instance, 5) != "hello\n":
        await deferLater(reactor, 0.02)
    while (await runtime.instances(spec.cluster))[0].running:
        # Again and again: one that is between two programs is, for an instant, nobody's.
        processes.kill(processes.members(instance=spec.instance), signal.SIGKILL)
        await deferLater(reactor, 0.02)
    await runtime.remove(spec.instance, 1.0)
    assert await runtime.instances(spec.cluster) == []


@kinds
@pytest_twisted.ensureDeferred
async def test_an_install_of_a_leader_that_was_killed_is_found(
    kind: str, runtime: Any, spec: InstanceSpec
) -> None:
    """It has no record, and is an instance to be ended all the same."""
    stray = subprocess.Popen(
        ["sleep", "300"],
        env={processes.CLUSTER: spec.cluster, processes.INSTANCE: spec.instance},
        start_new_session=True,
    )
    # A program that is being replaced by another shows no environment for a moment.
    while not (found := await runtime.instances(spec.cluster)):
        await deferLater(reactor, 0.02)
    assert [(one.instance, one.running) for one in found] == [(spec.instance, True)]
    await runtime.remove(spec.instance, 0.0)
    assert stray.wait(30) == -signal.SIGKILL


@kinds
@pytest_twisted.ensureDeferred
async def test_the_exit_code_of_one_that_died_is_kept(
    kind: str, runtime: Any, spec: InstanceSpec, short_directory: Path
) -> None:
    """For the next leader too."""
    await runtime.start(attrs.evolve(spec, command=shell("exit 42")))
    while (await runtime.instances(spec.cluster))[0].running:
        await deferLater(reactor, 0.02)
    successor = make_runtime(kind, short_directory)
    assert [each.exit_code for each in await successor.instances(spec.cluster)] == [42]


@kinds
@pytest_twisted.ensureDeferred
async def test_it_is_not_started_twice(kind: str, runtime: Any, spec: InstanceSpec) -> None:
    """A second start of one that runs is refused, and the first runs on."""
    await runtime.start(spec)
    with pytest.raises(StartFailed, match="runs already"):
        await runtime.start(spec)
    assert (await runtime.instances(spec.cluster))[0].running


@kinds
@pytest_twisted.ensureDeferred
async def test_a_program_that_is_not_there_is_said(
    kind: str, runtime: Any, spec: InstanceSpec
) -> None:
    """By the start itself, or inside a sandbox by its exit and output."""
    absent = attrs.evolve(spec, command=("/no/such/program",))
    if kind == "plain":
        with pytest.raises(StartFailed, match="/no/such/program"):
            await runtime.start(absent)
        assert await runtime.instances(spec.cluster) == []
        return
    await runtime.start(absent)
    while (await runtime.instances(spec.cluster))[0].running:
        await deferLater(reactor, 0.02)
    assert "/no/such/program" in await runtime.output(spec.instance, 5)


@kinds
@pytest_twisted.ensureDeferred
async def test_limits_it_cannot_keep_do_not_stop_it(
    kind: str, runtime: Any, spec: InstanceSpec
) -> None:
    """The log says so."""
    await runtime.start(attrs.evolve(spec, resources=Resources(cpus=1.0, pids=5)))
    assert (await runtime.instances(spec.cluster))[0].running


def test_an_output_file_stays_within_its_limit(tmp_path: Path) -> None:
    """Its end is kept, whole lines of it, and whoever appends goes on appending."""
    path = tmp_path / "output.log"
    lines = [f"line {number}\n" for number in range(1000)]
    with path.open("ab") as writer:
        writer.write("".join(lines).encode())
        writer.flush()
        output.trim(path, 2000)
        writer.write(b"later\n")
    kept = path.read_text().splitlines(keepends=True)
    assert kept[-1] == "later\n"
    assert kept[:-1] == lines[-len(kept) + 1 :]
    assert 900 < path.stat().st_size < 1010
    output.trim(path, 2000)
    assert path.read_text().splitlines(keepends=True) == kept
    output.trim(tmp_path / "nothing", 1)


def test_the_last_lines_of_a_file(tmp_path: Path) -> None:
    """No more than were asked for, from the end."""
    path = tmp_path / "output.log"
    path.write_bytes(b"a\nb\n\xff\nlast without an end")
    assert output.last_lines(path, 2) == "\ufffd\nlast without an end"
    assert output.last_lines(tmp_path / "nothing", 2) == ""


def test_output_is_cut_into_lines_and_its_end_is_kept() -> None:
    """However it arrives."""
    said: list[str] = []
    tail = output.OutputTail(said.append)
    for chunk in (b"one\ntw", b"o\r\nthr", b"ee"):
        tail.add(chunk)
    assert said == ["one", "two"]
    tail.end()
    assert said == ["one", "two", "three"]
    assert tail.text() == "one\ntwo\r\nthree"
    tail.add(b"x" * 200_000)
    assert len(tail.text()) == output.OUTPUT_LIMIT_BYTES
    assert said[-1].startswith("xxx")


def test_bubblewrap_that_is_not_installed_is_said() -> None:
    """Or does not work, in its own words."""
    assert find_sandbox({"PATH": "/nonexistent"}, []) == (
        None,
        "bubblewrap (the program bwrap) is not installed",
    )


def test_bubblewrap_that_does_not_work_is_said(tmp_path: Path) -> None:
    """As where the kernel forbids user namespaces."""
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1"
    )
    program.chmod(0o755)
    sandbox, problem = find_sandbox({"PATH": f"{tmp_path}:{os.environ['PATH']}"}, [])
    assert sandbox is None
    assert "No permissions to create new namespace" in problem


@kinds
@pytest_twisted.ensureDeferred
async def test_the_end_of_an_instance_is_told_at_once(
    kind: str, runtime: Any, spec: InstanceSpec
) -> None:
    """Also of one that another leader started: it is nobody's child here."""
    told: list[str] = []
    runtime.listen(told.append)
    await runtime.start(spec)
    while told != [spec.instance]:  # as above
        processes.kill(processes.members(instance=spec.instance), signal.SIGKILL)
        await deferLater(reactor, 0.02)


@pytest.mark.parametrize("kind", ["plain"])
@pytest_twisted.ensureDeferred
async def test_what_an_agent_that_died_left_running_is_ended(
    kind: str, runtime: Any, spec: InstanceSpec
) -> None:
    """Its next start would meet it."""
    await runtime.start(attrs.evolve(spec, command=shell("setsid sleep 300 & exit 1")))
    while (await runtime.instances(spec.cluster))[0].running:
        await deferLater(reactor, 0.02)
    while processes.members(instance=spec.instance):
        await deferLater(reactor, 0.02)


def test_a_process_that_becomes_another_program_is_seen_throughout() -> None:
    """At every moment of execve(2), in some of which proc(5) shows no environment."""
    variables = {processes.CLUSTER: secrets.token_hex(6), "PATH": os.defpath}
    for number in range(200):
        variables[processes.INSTANCE] = str(number)
        command = ["/bin/sh", "-c", "exec sleep 300"]
        with subprocess.Popen(command, env=variables) as child:
            try:
                found = processes.members(
                    instance=str(number), cluster=variables[processes.CLUSTER]
                )
            finally:
                child.kill()
        assert [each.pid for each in found] == [child.pid]
