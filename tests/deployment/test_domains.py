"""Domains that are disabled: what is deployed there is hidden, and stays as it is."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ploinky.values import DeploymentKey, DeploymentState
from tests.deployment.neighbours import KEY, Ground, Leader, only

ELSEWHERE = DeploymentKey("a.example", "/demo")


def enable(ground: Ground, leader: Leader, enabled: bool) -> Deferred[Any]:
    """Change ``localhost`` on record, and let the manager follow."""
    only(leader.begin(ground.repositories.change_domain("localhost", enabled)))
    return leader.begin(leader.manager.adopt_domains())


def hidden(ground: Ground) -> dict[str, bool]:
    return {str(r.key): r.is_hidden for r in ground.workers.tables[-1] if r.deployment}


def test_what_is_on_a_disabled_domain_is_hidden_and_goes_on(ground: Ground, leader: Leader) -> None:
    """Only there; it runs on, says why nobody comes, and is back with the same instances."""
    only(leader.begin(ground.repositories.add_domain("a.example")))
    only(leader.deploy())
    only(leader.deploy(key=ELSEWHERE))
    running = ground.engine.running()

    only(enable(ground, leader, False))

    assert hidden(ground) == {"localhost/demo": True, "a.example/demo": False}
    assert ground.workers.routed() == running  # for durable tasks
    views = {view.deployment.key: view for view in leader.manager.deployments()}
    assert views[KEY].state is DeploymentState.RUNNING
    assert "p-cli cloud host enable localhost" in views[KEY].warnings[-1]
    assert views[ELSEWHERE].warnings == ()
    only(enable(ground, leader, True))
    assert hidden(ground) == {"localhost/demo": False, "a.example/demo": False}
    assert ground.workers.routed() == ground.engine.running() == running
    assert leader.manager.deployments()[1].warnings == ()


def test_what_is_deployed_to_a_disabled_domain_waits_there(ground: Ground, leader: Leader) -> None:
    """It is built and started; nobody finds it before the domain is enabled."""
    only(enable(ground, leader, False))
    view = only(leader.deploy())
    assert view.state is DeploymentState.RUNNING
    assert view.warnings
    assert hidden(ground) == {"localhost/demo": True}


def test_it_stays_hidden_when_the_server_starts_again(ground: Ground, leader: Leader) -> None:
    """From its first table on."""
    only(leader.deploy())
    only(enable(ground, leader, False))
    seen = len(ground.workers.tables)

    later = ground.leader()
    only(later.begin(later.manager.recover()))

    tables = ground.workers.tables[seen:]
    assert tables
    assert all(r.is_hidden for table in tables for r in table if r.deployment)


def test_whoever_watches_is_told(ground: Ground, leader: Leader) -> None:
    """Of each deployment that appears or goes, once."""
    only(leader.deploy())
    told: list[DeploymentKey] = []
    leader.manager.watch(lambda key, line: told.append(key))
    only(enable(ground, leader, False))
    only(enable(ground, leader, False))
    assert told == [KEY]
