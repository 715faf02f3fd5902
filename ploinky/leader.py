"""The leader's rooms, and how they are started, one after the other.

Settings enter; a server that answers leaves.  This is a composition root: the only place that
names the leader's concrete classes.  What was started is stopped in reverse, each waited for.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger, globalLogPublisher

from ploinky.configuration import Configuration
from ploinky.deployment.compose import Neighbours, make_deployment_manager
from ploinky.deployment.planned import planned
from ploinky.deployment.spec import Layout
from ploinky.engines import leave_other_runtimes, note_runtime, start_runtime
from ploinky.errors import SettingsInvalid, StateUnusable
from ploinky.git.source import GitRepositories
from ploinky.interfaces import IRuntime
from ploinky.leader_interfaces import ISource
from ploinky.limit_interfaces import IRates
from ploinky.link import WorkerLinks
from ploinky.management import CONTROL_SOCKET, Managed, make_management
from ploinky.pids import start_time
from ploinky.processgroup import LeaderLock, ProcessGroup, WorkerCommand, WorkerRecords
from ploinky.recurring import recurring
from ploinky.rooms import Here, begin, listen, log_directory, new_id, pool, write
from ploinky.routing.rates import LOGINS_FILE_NAME, SharedRates
from ploinky.runtime.instances import Instances
from ploinky.runtime.probes import SocketProber
from ploinky.security.admission import Admission
from ploinky.security.bootstrap import BootstrapToken, is_loopback
from ploinky.security.published import PublishedKeys
from ploinky.security.strangers import Strangers
from ploinky.settings import Settings
from ploinky.sockets import SocketPaths
from ploinky.state import DATABASE, Stores, open_box, stores_of
from ploinky.store.database import Database
from ploinky.task_values import DURABLE_PREFIX
from ploinky.tasks.compose import make_durable_tasks
from ploinky.tasks.durable import DurableTasks
from ploinky.tasks.schedules import Schedules
from ploinky.tasks.worker_group import WorkersAndTasks
from ploinky.telemetry.deaths import Deaths
from ploinky.telemetry.history import InstanceHistory
from ploinky.telemetry.load import Loads
from ploinky.telemetry.logs import SERVER, DailyFile, JsonLog, at_level, prune
from ploinky.telemetry.metrics import Metrics
from ploinky.telemetry.redaction import Redactor, RememberingBox
from ploinky.values import (
    Address,
    DeploymentKey,
    Kind,
    Route,
    Target,
)
from ploinky.worker import LINK_SOCKET, LOAD, STRANGERS

BUILT_IN_PATHS = ("/management", "/auth", "/client", "/metrics", "/_ploinky", "/")
"""What the leader answers itself, on every domain; ``/`` only where nothing is deployed there."""

_CONTROL_SECONDS = 3600.0  # a deploy may pull an image before it answers
_DAY_SECONDS = 86_400.0
_MINUTE_SECONDS = 60.0
_FOR_WORKERS = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")

_log = Logger()


async def lead(reactor: Any, configuration: Configuration, rooms: AsyncExitStack) -> None:
    """Start the leader's rooms, one after the other.

    Args:
        configuration: Its settings as they are now; a few may change while the server runs.
        rooms: Takes how each is stopped.

    Raises:
        PloinkyError: One of them cannot start.
    """
    settings = configuration.settings
    _make_directories(settings)
    _hold_lock(settings, rooms)
    redactor = _begin_log(settings, rooms)
    here = _here(reactor, configuration, rooms)
    stores = await _open_stores(here, redactor, rooms)
    logins = _open_logins(settings, rooms)
    strangers = Strangers(reactor, stores.audit, logins)
    _begin_recording(here, strangers, rooms)
    metrics, loads, links, group = await _open_workers(here, stores, strangers, rooms)
    history = InstanceHistory(here.files, log_directory(settings) / "instances")
    await begin(history, rooms)
    deaths = Deaths(reactor, history)
    tasks = await _start_tasks(here, stores, deaths, rooms)
    is_used = bool(await stores.deployments.deployments())
    runtime = await start_runtime(reactor, settings, rooms, is_used=is_used)
    note_runtime(settings, runtime, is_used=is_used)
    _log.info("agents run on {runtime}", runtime=runtime.name)
    instances = await _start_instances(here, runtime, history, rooms)
    source = await _start_git(here, rooms)
    keys = PublishedKeys(reactor, stores.keys, links)
    workers = WorkersAndTasks(links, tasks)
    neighbours = Neighbours(
        here.files, stores.deployments, stores.repositories, source, runtime, instances, workers
    )
    manager = make_deployment_manager(
        reactor, new_id, here.cluster, settings, neighbours, built_in_routes(settings)
    )
    await begin(manager, rooms)
    bootstrap = BootstrapToken(secrets.token_bytes)
    admission = Admission(reactor, keys, secrets.token_bytes)
    managed = Managed(
        neighbours=neighbours,
        manager=manager,
        tasks=tasks,
        stores=stores,
        keys=keys,
        admission=admission,
        bootstrap=bootstrap,
        logins=logins,
        strangers=strangers,
        metrics=metrics,
        loads=loads,
        history=history,
        deaths=deaths,
    )
    management = await make_management(here, managed, rooms)
    await keys.load()
    _begin_flushing(here, keys, rooms)
    await tasks.recover()  # before the manager deletes queues that belong to nothing
    await manager.recover()
    # Workers of an earlier leader bring requests at once: to one that does not know yet what is
    # deployed, nothing is, and whatever it was asked to deploy would stand in for what is.
    await listen(here, CONTROL_SOCKET, management.site, rooms)
    leave_other_runtimes(here, rooms)
    schedules = Schedules(reactor, tasks, lambda: planned(manager.deployments()), new_durable_task)
    await begin(schedules, rooms)
    await group.start()
    # It was on the stack already; now it comes first, while all that it needs still works.
    rooms.push_async_callback(group.stopService)
    # Before that: workers wait for every answer in hand, and these would never end by themselves.
    rooms.push_async_callback(maybeDeferred, management.streams.stopService)
    _begin_pruning(here, history, rooms)
    # What is known by now mostly stays: where that is much, the collector's looks at it are long.
    gc.collect()
    gc.freeze()
    await _announce(here, group.port, admission, bootstrap, rooms)


def new_durable_task() -> str:
    """Give an unguessable id for a durable task."""
    return DURABLE_PREFIX + secrets.token_hex(16)


def built_in_routes(settings: Settings) -> list[Route]:
    """Give the routes to this leader's own control socket."""
    control = Target("", Address(path=str(settings.run_directory / CONTROL_SOCKET)))
    return [
        Route(
            DeploymentKey("*", path),
            Kind.CONTROL,
            targets=(control,),
            timeout_seconds=_CONTROL_SECONDS,
            concurrency=1024,
        )
        for path in BUILT_IN_PATHS
    ]


def _make_directories(settings: Settings) -> None:
    """Make the data directory and what every room takes for granted in it, for us alone.

    Raises:
        SettingsInvalid: It cannot be written to.
    """
    data = settings.data_directory
    for directory in (data, log_directory(settings), settings.run_directory):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            with open(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600), "rb"):
                pass
        except OSError as error:
            raise SettingsInvalid(
                [f"dir: {directory} cannot be used: {error.strerror}; choose another with --dir"]
            ) from error


def _hold_lock(settings: Settings, rooms: AsyncExitStack) -> None:
    lock = LeaderLock(str(settings.run_directory / "leader.lock"))
    lock.take()
    rooms.callback(lock.release)


def _begin_log(settings: Settings, rooms: AsyncExitStack) -> Redactor:
    """Log from now on; give what is to be told of secrets, so that none is logged."""
    redactor = Redactor()
    file = DailyFile(time.time, log_directory(settings), SERVER)
    observer = at_level(JsonLog(file, "leader", redactor), settings.log_level)
    globalLogPublisher.addObserver(observer)
    rooms.callback(file.close)
    rooms.callback(globalLogPublisher.removeObserver, observer)
    return redactor


def _here(reactor: Any, configuration: Configuration, rooms: AsyncExitStack) -> Here:
    settings = configuration.settings
    paths = SocketPaths(str(settings.run_directory))
    rooms.callback(paths.close)
    files, copying = pool(reactor, 4, "files", rooms), pool(reactor, 2, "copying", rooms)
    return Here(reactor, settings, configuration, paths, _cluster_id(settings), files, copying)


def _cluster_id(settings: Settings) -> str:
    """Give the id by which engines know what is ours; made at the first start."""
    path = settings.data_directory / "cluster-id"
    with suppress(FileNotFoundError):
        if kept := path.read_text(encoding="ascii").strip():
            return kept
    made = new_id()
    write(path, f"{made}\n")
    return made


def _open_logins(settings: Settings, rooms: AsyncExitStack) -> IRates:
    """Count logins together with the workers.

    Raises:
        SettingsInvalid: There is no place for it.
    """
    try:
        rates = SharedRates(settings.run_directory, time.monotonic_ns, LOGINS_FILE_NAME)
    except OSError as error:
        raise SettingsInvalid(
            [f"dir: {settings.run_directory} cannot be used: {error.strerror}; make room in it"]
        ) from error
    rooms.callback(rates.close)
    return rates


async def _open_workers(
    here: Here, stores: Stores, strangers: Strangers, rooms: AsyncExitStack
) -> tuple[Metrics, Loads, WorkerLinks, ProcessGroup]:
    """Listen on the public port; workers of an earlier leader are taken over."""
    settings = here.settings
    configuration: dict[str, Any] = {
        "run_directory": str(settings.run_directory),
        "log_directory": str(log_directory(settings)),
        "log_level": settings.log_level,
        "trusted_proxies": settings.trusted_proxies,
    }
    digest = hashlib.sha256(json.dumps(configuration).encode()).hexdigest()
    configuration["build"] = f"{version('ploinky')} {digest[:12]}"

    loads = Loads(here.reactor)

    def report(pid: int, kind: str, line: bytes) -> None:
        if kind == LOAD:
            loads.take(pid, line)
        elif kind == STRANGERS:
            strangers.take(line)

    metrics = Metrics(
        here.reactor,
        stores.metrics,
        lambda numbers: links.kept(numbers),
        stores.deployments,
        settings.metrics_retention_days,
    )
    await metrics.load()
    await begin(metrics, rooms)
    links = WorkerLinks(here.reactor, configuration["build"], report, metrics)
    group = ProcessGroup(
        here.reactor,
        links,
        settings.host,
        settings.port,
        settings.workers,
        WorkerCommand(
            [sys.executable, "-m", "ploinky.worker"], _worker_environment(), configuration
        ),
        WorkerRecords(settings.run_directory / "workers"),
    )
    await listen(here, LINK_SOCKET, links, rooms)
    rooms.push_async_callback(group.leave)
    await group.open()
    return metrics, loads, links, group


def _worker_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _FOR_WORKERS if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
    return kept


async def _open_stores(here: Here, redactor: Redactor, rooms: AsyncExitStack) -> Stores:
    data = here.settings.data_directory
    database = Database(data / DATABASE, pool(here.reactor, 1, "database", rooms))
    rooms.push_async_callback(database.close)
    await database.open()
    box = RememberingBox(await open_box(data, database), redactor)
    return stores_of(here.reactor, database, box, here.copying)


async def _start_tasks(
    here: Here, stores: Stores, deaths: Deaths, rooms: AsyncExitStack
) -> DurableTasks:
    queues_directory = Layout(here.settings.data_directory).queues
    queues, tasks = make_durable_tasks(
        here.reactor, here.settings, stores.tasks, deaths.cause, queues_directory
    )
    await begin(queues, rooms)
    await begin(tasks, rooms)
    return tasks


async def _start_instances(
    here: Here, runtime: IRuntime, history: InstanceHistory, rooms: AsyncExitStack
) -> Instances:
    prober = SocketProber(here.reactor, here.paths)
    run_directory = here.settings.run_directory
    removing = pool(here.reactor, 2, "removing queues", rooms)
    instances = Instances(
        here.reactor, runtime, prober, run_directory, here.cluster, history, removing
    )
    await begin(instances, rooms)
    return instances


async def _start_git(here: Here, rooms: AsyncExitStack) -> ISource:
    settings = here.settings
    source = GitRepositories(
        here.reactor,
        pool(here.reactor, 4, "git", rooms),
        settings.data_directory / "repos",
        cache_seconds=settings.cache_time_ms / 1000,
        file_roots=settings.git_file_roots,
    )
    await begin(source, rooms)
    return source


def _begin_pruning(here: Here, history: InstanceHistory, rooms: AsyncExitStack) -> None:
    """Delete old logs, now and once a day."""

    async def sweep() -> None:
        days, now = here.configuration.settings.log_retention_days, time.time()
        await here.files.run(prune, log_directory(here.settings), days, now)
        await history.prune(now - days * _DAY_SECONDS)

    _repeat(here, sweep, _DAY_SECONDS, rooms)


def _begin_flushing(here: Here, keys: PublishedKeys, rooms: AsyncExitStack) -> None:
    """Write down once a minute, and at the end, when keys were used last."""

    async def flush() -> None:
        try:
            await keys.flush()
        except StateUnusable as error:  # it is worth no more than a line
            _log.warn("when keys were used last is not on record: {why}", why=error.message)

    rooms.push_async_callback(flush)
    _repeat(here, flush, _MINUTE_SECONDS, rooms)


def _begin_recording(here: Here, strangers: Strangers, rooms: AsyncExitStack) -> None:
    """Write down once a second, and at the end, what strangers were refused."""
    rooms.push_async_callback(strangers.write)
    _repeat(here, strangers.write, 1.0, rooms)


def _repeat(
    here: Here, work: Callable[[], Coroutine[Any, Any, None]], seconds: float, rooms: AsyncExitStack
) -> None:
    """Do something now, and then every so many seconds, until the server stops."""
    call = recurring(here.reactor, f"the server's {work.__name__}", work)
    ended = call.start(seconds)

    async def end() -> None:
        call.stop()
        await ended

    rooms.push_async_callback(end)


async def _announce(
    here: Here,
    port: int,
    admission: Admission,
    bootstrap: BootstrapToken,
    rooms: AsyncExitStack,
) -> None:
    """Write ``run/leader.json`` for ``p-cli``, and say where the server is."""
    settings = here.settings
    leader: dict[str, Any] = {
        "pid": os.getpid(),
        "port": port,
        "host": settings.host,
        "started_at": time.time(),
        "start_time": start_time(os.getpid()),
        "version": version("ploinky"),
    }
    if not await admission.initialized() and not is_loopback(settings.host):
        leader["notice"] = (
            f"Bootstrap token: {bootstrap.mint()}\n"
            "Claim this server from elsewhere with: p-cli cloud init --token TOKEN"
        )
    path = settings.run_directory / "leader.json"
    write(path, json.dumps(leader))
    rooms.callback(path.unlink, missing_ok=True)
    host = "localhost" if is_loopback(settings.host) else settings.host
    say(sys.__stdout__, f"Ploinky Cloud serves http://{host}:{port}", leader.get("notice", ""))
    _log.info("the server answers on port {port}", port=port)


def say(stream: Any, *texts: str) -> None:
    """Tell whoever started us, past twistd's own log; the stream may have been closed."""
    with suppress(OSError, ValueError, AttributeError):
        stream.write("".join(f"{text}\n" for text in texts if text))
        stream.flush()
