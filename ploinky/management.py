"""The management API, put together: the leader's control socket and all that stands behind it.

A part of the root, which names concrete classes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from ploinky.backup.making import Backups
from ploinky.configuration import Change
from ploinky.deployment.compose import Neighbours
from ploinky.deployment.manager import DeploymentManager
from ploinky.deployment.spec import Layout, Plans
from ploinky.interfaces import IAuthenticatorFactory
from ploinky.limit_interfaces import IRates
from ploinky.rooms import Here, begin, log_directory, new_id, plugins
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.security.admission import Admission
from ploinky.security.bootstrap import BootstrapToken
from ploinky.security.keyring import Keyring
from ploinky.security.published import PublishedKeys
from ploinky.security.strangers import Strangers
from ploinky.security.throttle import LoginThrottle
from ploinky.state import Stores, master_key_file
from ploinky.store_interfaces import IKeyStore
from ploinky.tasks.commands import commands_of
from ploinky.tasks.durable import DurableTasks
from ploinky.telemetry.deaths import Deaths
from ploinky.telemetry.history import InstanceHistory
from ploinky.telemetry.hub import Hub
from ploinky.telemetry.load import Loads
from ploinky.telemetry.metrics import Metrics
from ploinky.telemetry.usages import Usages

if TYPE_CHECKING:
    from ploinky.api.streams import Streams

CONTROL_SOCKET = "control.sock"

_log = Logger()


@frozen
class Managed:
    """What there is to be managed, and who may.

    Attributes:
        logins: Where they are counted, together with the workers.
        strangers: How much of what they are refused is written down.
        metrics: How many calls there were, and how they went.
        loads: What is in hand now.
        history: What became of instances.
        deaths: Why they went away.
    """

    neighbours: Neighbours
    manager: DeploymentManager
    tasks: DurableTasks
    stores: Stores
    keys: PublishedKeys
    admission: Admission
    bootstrap: BootstrapToken
    logins: IRates
    strangers: Strangers
    metrics: Metrics
    loads: Loads
    history: InstanceHistory
    deaths: Deaths


@frozen
class Management:
    """The API, before anybody can reach it.

    Attributes:
        site: What listens on the control socket.
        streams: What its caller stops before workers are drained.
    """

    site: IProtocolFactory
    streams: Streams


async def make_management(here: Here, managed: Managed, rooms: AsyncExitStack) -> Management:
    """Put it together, and start what stands behind it."""
    # Importing Klein installs a reactor, so it comes after twistd chose one.
    from ploinky.api.application import make_site
    from ploinky.api.endpoints import Collaborators
    from ploinky.api.operations import Operations
    from ploinky.api.streams import Streams

    operations = Operations(here.reactor)
    await begin(operations, rooms)
    usages = Usages(here.reactor, managed.neighbours.runtime, here.cluster)
    await begin(usages, rooms)
    streams = Streams(here.reactor)
    managed.keys.listen(streams.dismiss)
    streams.startService()  # type: ignore[no-untyped-call]

    async def change_settings(changes: Mapping[str, Any], revision: str) -> Change:
        made = await here.configuration.change(here.files, changes, revision)
        await managed.manager.adopt(here.configuration.settings)
        return made

    upstream = Upstream(here.reactor, Wheel(here.reactor), here.paths)
    rooms.callback(upstream.close)

    async def commands(deployment: str) -> Sequence[Mapping[str, Any]]:
        return await commands_of(here.reactor, upstream, managed.tasks.route(deployment))

    backups = Backups(
        here.reactor,
        here.copying,
        managed.stores.snapshots,
        managed.stores.deployments,
        managed.neighbours.runtime,
        Plans(here.cluster, Layout(here.settings.data_directory), here.settings),
        master_key_file(here.settings.data_directory),
    )
    collaborators = Collaborators(
        clock=here.reactor,
        settings=here.settings,
        configuration=here.configuration,
        change_settings=change_settings,
        cluster=here.cluster,
        deployments=managed.manager,
        deployment_store=managed.neighbours.store,
        repositories=managed.neighbours.repositories,
        source=managed.neighbours.source,
        runtime=managed.neighbours.runtime,
        workers=managed.neighbours.workers,
        tasks=managed.tasks,
        task_store=managed.stores.tasks,
        admission=managed.admission,
        keys=managed.keys,
        keyring=Keyring(here.reactor, managed.keys, secrets.token_bytes),
        hooks=managed.stores.hooks,
        audit=managed.stores.audit,
        authenticators=await _authenticators(here, managed.keys),
        bootstrap=managed.bootstrap,
        throttle=LoginThrottle(managed.logins),
        strangers=managed.strangers,
        operations=operations,
        metrics=managed.metrics,
        loads=managed.loads,
        usages=usages,
        history=managed.history,
        deaths=managed.deaths,
        hub=Hub(new_id()),
        backups=backups,
        streams=streams,
        log_directory=log_directory(here.settings),
        files=here.files,
        random_bytes=secrets.token_bytes,
        commands=commands,
        new_id=new_id,
    )
    return Management(make_site(collaborators), streams)


async def _authenticators(here: Here, keys: IKeyStore) -> Sequence[Any]:
    """Give every authenticator that can be used here and now."""
    found = []
    for name, factory in plugins(IAuthenticatorFactory).items():
        if reason := await factory.available(here.reactor):
            _log.info("authenticator {name} is not used: {reason}", name=name, reason=reason)
        else:
            found.append(await factory.create(here.reactor, here.settings, keys))
    return found
