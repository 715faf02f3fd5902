"""What any `IDeploymentManager` must do.

Subclass `DeploymentManagerContract` in a test module, with a fixture `manager` that gives one
without deployments, at which an agent ``demo`` of the repository at `URL` can be deployed.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from ploinky.errors import NotFound
from ploinky.interfaces import IDeploymentManager
from ploinky.values import DeploymentKey, DeploymentState, DeploymentView, DeployRequest

URL = "https://git.example/agents.git"
KEY = DeploymentKey("localhost", "/demo")


def now(work: Coroutine[Deferred[Any], Any, Any]) -> Any:
    """Give what comes without waiting."""
    arrived: list[Any] = []
    done: Deferred[Any] = Deferred.fromCoroutine(work)
    done.addCallback(arrived.append)
    failures: list[Any] = []
    done.addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    return arrived[0]


class DeploymentManagerContract:
    """Promises of `IDeploymentManager`."""

    def deploy(self, manager: IDeploymentManager, key: DeploymentKey = KEY) -> DeploymentView:
        """Deploy the demo agent."""
        view: DeploymentView = now(
            manager.deploy(DeployRequest(key, "demo", repository=URL), lambda line: None)
        )
        return view

    def test_what_is_deployed_is_listed_and_runs(self, manager: IDeploymentManager) -> None:
        """The answer to a deploy and the list say the same."""
        view = self.deploy(manager)

        assert manager.deployments() == [view]
        assert view.state is DeploymentState.RUNNING
        assert view.release is not None
        assert (view.release.number, view.healthy_instances) == (1, 1)

    def test_progress_is_told(self, manager: IDeploymentManager) -> None:
        """In lines for people."""
        said: list[str] = []
        now(manager.deploy(DeployRequest(KEY, "demo", repository=URL), said.append))

        assert any("demo" in line for line in said)

    def test_a_second_deploy_is_the_next_release(self, manager: IDeploymentManager) -> None:
        """Of the same deployment."""
        first = self.deploy(manager)
        second = self.deploy(manager)

        assert second.deployment.id == first.deployment.id
        assert second.release is not None
        assert second.release.number == 2
        assert len(manager.deployments()) == 1

    def test_they_are_listed_by_key(self, manager: IDeploymentManager) -> None:
        """Whatever the order in which they came."""
        for path in ("/b", "/a"):
            self.deploy(manager, DeploymentKey("localhost", path))

        assert [view.deployment.key.path for view in manager.deployments()] == ["/a", "/b"]

    def test_one_is_found_by_its_key_and_by_its_id(self, manager: IDeploymentManager) -> None:
        """Until it is removed, and whatever others there are."""
        view = self.deploy(manager)
        self.deploy(manager, DeploymentKey("localhost", "/other"))

        assert manager.deployment(KEY) == view
        assert manager.deployment_of(view.deployment.id) == view
        now(manager.remove(KEY))
        assert manager.deployment_of(view.deployment.id) is None
        with pytest.raises(NotFound):
            manager.deployment(KEY)

    def test_it_stops_starts_and_restarts(self, manager: IDeploymentManager) -> None:
        """And the answers say so."""
        self.deploy(manager)

        assert now(manager.stop(KEY)).state is DeploymentState.STOPPED
        assert manager.deployments()[0].healthy_instances == 0
        assert now(manager.start(KEY)).state is DeploymentState.RUNNING
        assert now(manager.restart(KEY)).state is DeploymentState.RUNNING

    def test_what_is_removed_is_gone(self, manager: IDeploymentManager) -> None:
        """And may come again as a new one."""
        former = self.deploy(manager)
        now(manager.remove(KEY))

        assert manager.deployments() == []
        assert self.deploy(manager).deployment.id != former.deployment.id

    def test_a_key_without_a_deployment_is_not_found(self, manager: IDeploymentManager) -> None:
        """By any method but `deploy`."""
        for work in (manager.remove, manager.restart, manager.stop, manager.start):
            with pytest.raises(NotFound):
                now(work(KEY))
