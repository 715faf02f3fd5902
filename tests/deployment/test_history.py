"""Going back, scaling, and what is hidden of a deploy."""

from __future__ import annotations

import pytest

from ploinky.deploy_errors import InstallFailed, ProbeFailed
from ploinky.errors import Conflict, NotFound
from ploinky.instance_values import RunResult
from ploinky.values import DeploymentState
from tests.deployment.neighbours import KEY, Ground, Leader, only, with_settings


def rollback(leader: Leader, number: int = 0):
    """Begin to serve an earlier release again."""
    return leader.begin(leader.manager.rollback(KEY, number))


def scale(leader: Leader, replicas: int):
    """Begin to run so many instances."""
    return leader.begin(leader.manager.scale(KEY, replicas))


def test_a_rollback_brings_the_old_release_in_before_the_new_one_goes(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    only(leader.deploy())
    old = ground.engine.running()
    leader.steps.hold("instance starts")

    going = rollback(leader)
    assert ground.workers.routed() == old
    leader.steps.let_go("instance starts")

    view = only(going)
    assert (view.state, view.deployment.active_release) == (DeploymentState.RUNNING, 1)
    assert ground.workers.routed() == ground.engine.running()
    assert not ground.engine.running() & old
    assert ground.workers.route().release == 1


def test_a_rollback_that_fails_leaves_what_serves(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.deploy())
    old = ground.engine.running()
    leader.instances.sick = {1}

    with pytest.raises(ProbeFailed):
        only(rollback(leader))

    assert ground.workers.routed() == ground.engine.running() == old
    assert leader.manager.deployments()[0].deployment.active_release == 2


def test_after_a_rollback_a_restarted_server_finds_the_same(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.deploy())
    only(rollback(leader))

    second = ground.leader()
    only(second.begin(second.manager.recover()))

    (view,) = second.manager.deployments()
    assert (view.deployment.active_release, view.healthy_instances) == (1, 1)
    only(second.deploy())
    assert second.manager.deployments()[0].deployment.active_release == 3


def test_a_rollback_needs_a_release_that_served_and_is_kept(ground: Ground, leader: Leader) -> None:
    with pytest.raises(NotFound):
        only(rollback(leader))
    only(leader.deploy())
    for number, error in ((0, NotFound), (1, Conflict), (7, NotFound)):
        with pytest.raises(error):
            only(rollback(leader, number))
    assert leader.manager.deployments()[0].state is DeploymentState.RUNNING


def test_what_never_served_has_nothing_to_go_back_to(ground: Ground, leader: Leader) -> None:
    """It does not serve already, either."""
    leader.instances.sick = {1}
    with pytest.raises(ProbeFailed):
        only(leader.deploy())
    with pytest.raises(NotFound, match="no earlier release"):
        only(rollback(leader))


def test_the_code_of_an_old_release_is_missed_before_anything_happens(ground: Ground) -> None:
    with_settings(ground, releases_kept=1)
    leader = ground.leader()
    only(leader.begin(leader.manager.recover()))
    for _ in range(3):
        only(leader.deploy())
    before = ground.engine.running()
    with pytest.raises(NotFound, match="releasesKept"):
        only(rollback(leader, 1))
    assert ground.engine.running() == before


def test_scaling_up_adds_and_scaling_down_drains(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    first = ground.engine.running()

    assert only(scale(leader, 3)).healthy_instances == 3
    assert first < ground.engine.running() == ground.workers.routed()

    assert only(scale(leader, 1)).healthy_instances == 1
    assert ground.engine.running() == ground.workers.routed() == first
    only(leader.begin(leader.manager.restart(KEY)))
    assert len(ground.engine.running()) == 1


def test_a_number_of_instances_outlives_restarts_and_the_next_deploy_of_the_same(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    only(scale(leader, 2))
    only(leader.begin(leader.manager.restart(KEY)))
    assert len(ground.engine.running()) == 2
    (view,) = leader.manager.deployments()
    assert view.release.request.settings["replicas"] == 2


def test_scaling_that_fails_leaves_what_serves(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    before = ground.engine.running()
    leader.instances.sick = {1}
    with pytest.raises(ProbeFailed):
        only(scale(leader, 3))
    assert ground.engine.running() == ground.workers.routed() == before
    only(leader.begin(leader.manager.stop(KEY)))
    with pytest.raises(Conflict, match="stopped"):
        only(scale(leader, 2))


def test_secrets_are_in_nothing_that_is_told_or_kept(ground: Ground, leader: Leader) -> None:
    ground.push({"install": "print $S"})
    leader.runtime.outcome = RunResult(1, "it said needle-1 and plain-2")
    with pytest.raises(InstallFailed) as raised:
        only(leader.deploy(environment={"S": "needle-1", "A": "plain-2"}, secrets=("S",)))
    assert raised.value.output == "it said *** and plain-2"
    (view,) = leader.manager.deployments()
    assert "needle" not in repr(view.error)
