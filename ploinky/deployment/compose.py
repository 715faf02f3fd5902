"""The pieces of this room, put together: one call for the roots, and for tests with other neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.deployment.admission import Admission
from ploinky.deployment.agents import AgentFinder
from ploinky.deployment.board import RouteBoard
from ploinky.deployment.cutover import Cutover
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.manager import DeploymentManager
from ploinky.deployment.recovery import Recovery
from ploinky.deployment.register import Register
from ploinky.deployment.releases import ReleaseBuilder
from ploinky.deployment.revival import Revival
from ploinky.deployment.rollout import Rollout
from ploinky.deployment.spec import Layout, Plans
from ploinky.interfaces import IRuntime
from ploinky.leader_interfaces import IInstances, ISource, IWorkerGroup
from ploinky.settings import Settings
from ploinky.store_interfaces import IDeploymentStore, IRepositoryStore
from ploinky.threads import Blocking
from ploinky.values import Route


@frozen
class Neighbours:
    """The rooms that the manager conducts; all are owned by whoever made them.

    Attributes:
        blocking: Threads for making, reading and deleting directories.
    """

    blocking: Blocking
    store: IDeploymentStore
    repositories: IRepositoryStore
    source: ISource
    runtime: IRuntime
    instances: IInstances
    workers: IWorkerGroup


def make_deployment_manager(
    clock: IReactorTime,
    new_id: Callable[[], str],
    cluster: str,
    settings: Settings,
    neighbours: Neighbours,
    built_in_routes: Sequence[Route],
) -> DeploymentManager:
    """Put a deployment manager together.

    Args:
        new_id: Gives unguessable ids of ``[a-z0-9]{12}``.
        cluster: This server's id.
        built_in_routes: The server's own routes, published with every table.

    Returns:
        A service that the caller starts, whose ``recover`` it awaits, and that it stops.
    """
    layout = Layout(settings.data_directory)
    plans = Plans(cluster, layout, settings)
    blocking, near = neighbours.blocking, neighbours
    board = RouteBoard(near.workers, near.instances, built_in_routes)
    fleet = Fleet(new_id, blocking, near.instances, near.workers, plans, board.forget)
    finder = AgentFinder(near.source, near.repositories)
    releases = ReleaseBuilder(new_id, blocking, near.source, finder, near.runtime, plans)
    register = Register(clock, new_id, board, plans)
    cutover = Cutover(clock, near.store, board, fleet, plans)
    return DeploymentManager(
        near.store,
        Admission(near.repositories, board, layout),
        register,
        releases,
        fleet,
        board,
        Rollout(clock, near.store, releases, fleet, board, register, plans),
        cutover,
        Recovery(blocking, near.store, near.instances, fleet, layout),
        Revival(clock, releases, fleet, board, register, cutover),
        near.instances,
    )
