"""The runtime that a data directory's agents run on, and those that they ran on before.

A part of the root.  File ``runtime`` of the data directory names them, a line each: the one in use
first, then those on which instances may still run, though nothing routes to them any more.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.deploy_errors import EngineUnavailable
from ploinky.deployment.jobs import together
from ploinky.errors import PloinkyError
from ploinky.extensions import select_runtime
from ploinky.interfaces import IRuntime, IRuntimeFactory
from ploinky.rooms import Here, begin, plugins, write
from ploinky.settings import AUTO, Settings

_GRACE_SECONDS = 10.0
_log = Logger()


async def start_runtime(
    reactor: Any, settings: Settings, rooms: AsyncExitStack, *, is_used: bool
) -> IRuntime:
    """Start the runtime that the settings name.

    With ``auto`` it is the one on which the data directory's agents run, if something is
    deployed: another one that happens to answer knows nothing of those instances.

    Args:
        is_used: Whether something is deployed.
        rooms: Takes how it is stopped.

    Raises:
        EngineUnavailable: It cannot be used, with the next step.
    """
    factories = plugins(IRuntimeFactory)
    last = next(iter(_names(settings)), "")
    if settings.runtime == AUTO and is_used and last in factories:
        try:
            runtime = await select_runtime(last, reactor, settings, factories)
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"What is deployed here runs on {last}. {error.message} (On another one, which"
                " --runtime names, all of it is started anew.)"
            ) from error
    else:
        runtime = await select_runtime(settings.runtime, reactor, settings, factories)
    if IService.providedBy(runtime):
        await begin(runtime, rooms)
    return runtime


def note_runtime(settings: Settings, runtime: IRuntime, *, is_used: bool) -> None:
    """Write down what agents run on from now on, before anything is started there.

    Args:
        is_used: Whether something is deployed, so that some of it may run on the one before.
    """
    before = _names(settings)
    left = [name for name in before[0 if is_used else 1 :] if name != runtime.name]
    _keep(settings, [runtime.name, *left])


def leave_other_runtimes(here: Here, rooms: AsyncExitStack) -> None:
    """End what still runs elsewhere, once no table leads to it; this goes on beside all else.

    What does not get done is done at a later start.

    Args:
        rooms: Takes how the work is stopped.
    """
    leaving = Deferred.fromCoroutine(_leave(here)).addErrback(_broke)

    async def end() -> None:
        leaving.cancel()
        await leaving

    rooms.push_async_callback(end)


def _broke(failure: Failure) -> None:
    if failure.check(CancelledError) is None:  # else the server stops
        _log.failure("what runs on other runtimes could not be ended", failure)


async def _leave(here: Here) -> None:
    """End every instance on each runtime but the one in use."""
    kept = _names(here.settings)
    for name in kept[1:]:
        try:
            count = await _end_all(here, name)
        except PloinkyError as error:
            _log.warn(
                "instances that nothing routes to may still run on {name}; the next start looks"
                " again. {why}",
                name=name,
                why=error.message,
            )
            continue
        kept.remove(name)
        _keep(here.settings, kept)
        _log.info("{count} instances on {name} have been ended", count=count, name=name)


async def _end_all(here: Here, name: str) -> int:
    """End every instance on a runtime and give their number.

    Raises:
        EngineUnavailable: It does not answer, or there is no such runtime any more.
    """
    async with AsyncExitStack() as rooms:
        runtime = await select_runtime(name, here.reactor, here.settings, plugins(IRuntimeFactory))
        if IService.providedBy(runtime):
            await begin(runtime, rooms)
        found = await runtime.instances(here.cluster)
        await together(runtime.remove(one.instance, _GRACE_SECONDS) for one in found)
        return len(found)


def _names(settings: Settings) -> list[str]:
    with suppress(FileNotFoundError):
        return (settings.data_directory / "runtime").read_text(encoding="utf-8").split()
    return []


def _keep(settings: Settings, names: list[str]) -> None:
    write(settings.data_directory / "runtime", "".join(f"{name}\n" for name in names))
