"""What a server finds when it starts again, wherever the one before it was killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from ploinky.values import DeploymentKey, DeploymentState, ReleaseState
from tests.deployment.neighbours import KEY, Ground, Leader, Steps, only

OTHER = DeploymentKey("localhost", "/other")


def recovered(ground: Ground, steps: Steps | None = None) -> Leader:
    leader = ground.leader(steps)
    only(leader.begin(leader.manager.recover()))
    return leader


def test_running_instances_are_adopted_and_nothing_is_started(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy(settings={"replicas": 2}))
    running, codes = ground.engine.running(), ground.codes()

    again = recovered(ground)

    assert ground.engine.running() == ground.workers.routed() == running
    assert ground.codes() == codes
    (view,) = again.manager.deployments()
    assert (view.state, view.healthy_instances) == (DeploymentState.RUNNING, 2)
    assert "instance starts" not in again.steps.passed


def test_workers_hear_nothing_before_it_is_decided_what_serves(
    ground: Ground, leader: Leader
) -> None:
    """They go on by the table they have; then they get one that has everything adopted."""
    only(leader.deploy())
    only(leader.deploy(key=OTHER))
    tables = len(ground.workers.tables)
    steps = Steps()
    steps.hold("instances.adopt")
    again = ground.leader(steps)

    recovering = again.begin(again.manager.recover())
    assert len(ground.workers.tables) == tables
    steps.let_go("instances.adopt")

    only(recovering)
    assert len(ground.workers.tables) == tables + 1
    assert ground.workers.routed() == ground.engine.running()


def test_what_does_not_run_is_started_again(ground: Ground, leader: Leader) -> None:
    """After a reboot of the machine, say."""
    only(leader.deploy(settings={"replicas": 2}))
    for name, status in ground.engine.containers.items():
        ground.engine.containers[name] = attrs.evolve(status, running=False)

    again = recovered(ground)

    assert len(ground.engine.running()) == 2
    assert ground.engine.running() == ground.workers.routed() == set(ground.engine.containers)
    assert again.manager.deployments()[0].healthy_instances == 2
    assert ground.queues() == ground.engine.running()


def test_only_the_missing_replica_is_started(ground: Ground, leader: Leader) -> None:
    only(leader.deploy(settings={"replicas": 3}))
    gone, *kept = sorted(ground.engine.running())
    del ground.engine.containers[gone]

    recovered(ground)

    assert ground.engine.running() > set(kept)
    assert len(ground.engine.running()) == 3


def test_what_cannot_be_started_is_tried_again_later(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    ground.engine.containers.clear()
    again = ground.leader()
    again.instances.sick = {1}
    only(again.begin(again.manager.recover()))
    (view,) = again.manager.deployments()
    assert view.state is DeploymentState.UNHEALTHY
    assert ground.workers.route().targets == ()

    again.clock.advance(4.9)
    again.instances.sick = set()
    assert ground.engine.running() == set()
    again.clock.advance(0.1)

    assert again.manager.deployments()[0].state is DeploymentState.RUNNING
    assert ground.workers.routed() == ground.engine.running()


def test_what_nobody_has_foreseen_does_not_end_the_attempts(ground: Ground, leader: Leader) -> None:
    """It is logged with where it happened, and tried again as ever; nobody else would."""
    only(leader.deploy(settings={"replicas": 2}))
    ground.engine.containers.popitem()
    again = ground.leader()
    again.instances.blunder = RuntimeError("the disk is on fire")
    with capturedLogs() as logged:
        only(again.begin(again.manager.recover()))
        again.clock.advance(5)
    (first, second) = (event["log_failure"] for event in logged if "log_failure" in event)
    assert "on fire" in first.getTraceback()
    assert "launch" in second.getTraceback()

    again.instances.blunder = None
    again.clock.advance(15)

    assert again.manager.deployments()[0].healthy_instances == 2
    assert ground.workers.routed() == ground.engine.running()
    assert again.clock.getDelayedCalls() == []


def test_a_removal_ends_the_attempts_to_start(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    ground.engine.containers.clear()
    again = ground.leader()
    again.instances.sick = {1}
    only(again.begin(again.manager.recover()))

    only(again.begin(again.manager.remove(KEY)))
    again.clock.advance(3600)

    assert again.manager.deployments() == []
    assert again.clock.getDelayedCalls() == []


def test_a_stopped_deployment_stays_stopped(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))

    again = recovered(ground)

    assert again.manager.deployments()[0].state is DeploymentState.STOPPED
    assert "is stopped" in ground.workers.route().reason
    only(again.begin(again.manager.start(KEY)))
    assert ground.workers.routed() == ground.engine.running()


def test_a_failed_deployment_is_still_listed_with_its_reason(
    ground: Ground, leader: Leader
) -> None:
    leader.instances.sick = {1}
    leader.deploy().addErrback(lambda failure: None)

    (view,) = recovered(ground).manager.deployments()

    assert view.state is DeploymentState.FAILED
    assert view.error["output"] == "boom"


def test_an_external_deployment_is_routed_again(ground: Ground, leader: Leader) -> None:
    only(leader.deploy(repository="", target="http://127.0.0.1:9000"))
    table = ground.workers.tables[-1]

    again = recovered(ground)

    assert ground.workers.tables[-1] == table
    assert again.manager.deployments()[0].state is DeploymentState.RUNNING


def test_nothing_of_another_server_and_no_volume_is_touched(ground: Ground, leader: Leader) -> None:
    view = only(leader.deploy())
    deployments = ground.settings.data_directory / "deployments"
    mine = deployments / view.deployment.id / "volumes" / "db"
    former = deployments / "gonegonegone" / "volumes" / "db"
    for volume in (mine, former):
        volume.mkdir(parents=True)
    for empty in ("gonegonegone", "withoutvolum"):
        (deployments / empty / "releases" / "4").mkdir(parents=True)

    recovered(ground)

    assert mine.is_dir()
    assert former.is_dir()
    assert not (deployments / "gonegonegone" / "releases").exists()
    assert not (deployments / "withoutvolum").exists()


def test_a_record_that_this_version_cannot_read_does_not_keep_the_rest_down(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    view = only(leader.deploy(key=OTHER))
    broken = attrs.evolve(view.release, settings={"port": "what?"})
    only(leader.begin(ground.store.save_release(broken)))

    again = recovered(ground)

    states = [one.state for one in again.manager.deployments()]
    assert states == [DeploymentState.RUNNING, DeploymentState.FAILED]


# --- killed between any two steps -----------------------------------------------

Scenario = Callable[[Leader], Deferred[Any]]
SCENARIOS: dict[str, Scenario] = {
    "redeploy": lambda leader: leader.deploy(),
    "first deploy of another": lambda leader: leader.deploy(key=OTHER),
    "restart": lambda leader: leader.begin(leader.manager.restart(KEY)),
    "stop": lambda leader: leader.begin(leader.manager.stop(KEY)),
    "remove": lambda leader: leader.begin(leader.manager.remove(KEY)),
}


def begun(ground: Ground, scenario: str, last: int | None) -> tuple[Leader, Deferred[Any]]:
    """Serve release 1 at KEY, then do the scenario, no further than its `last` step."""
    ground.push({"install": "true", "replicas": 2})
    first = recovered(ground)
    only(first.deploy())
    steps = Steps()
    leader = recovered(ground, steps)
    steps.passed.clear()
    steps.last = last
    return leader, SCENARIOS[scenario](leader)


def steps_of(scenario: str, directory: Any) -> list[str]:
    ground = Ground(directory)
    leader, done = begun(ground, scenario, None)
    only(done)
    return leader.steps.passed


def check_whole(ground: Ground, leader: Leader) -> None:
    """Whatever serves is whole, and there is nothing besides."""
    releases = {view.deployment.id: view.release for view in leader.manager.deployments()}
    serving = {
        view.deployment.id: view.release.number
        for view in leader.manager.deployments()
        if view.state is DeploymentState.RUNNING
    }
    assert ground.workers.routed() == ground.engine.running() == set(ground.engine.containers)
    assert ground.queues() == ground.engine.running()
    found = {(one.deployment, one.release) for one in ground.engine.containers.values()}
    assert found == set(serving.items())
    assert len(ground.engine.containers) == 2 * len(serving)
    for deployment, number in serving.items():
        assert f"{deployment}/{number}" in ground.codes()
    for code in ground.codes():
        deployment, _, number = code.partition("/")
        assert deployment in releases
        states = {
            one.number: one.state for one in only(leader.begin(ground.store.releases(deployment)))
        }
        assert states[int(number)] in (ReleaseState.ACTIVE, ReleaseState.RETIRED)
        assert ReleaseState.PREPARING not in states.values()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_leader_killed_at_any_step_leaves_old_or_new_and_no_stray(
    ground: Ground, scenario: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The next leader finds the old release or the new one serving, and cleans up the rest."""
    names = steps_of(scenario, tmp_path_factory.mktemp("count"))
    outcomes = set()
    for last in range(len(names) + 1):
        killed_on = Ground(tmp_path_factory.mktemp("killed"))
        dead, done = begun(killed_on, scenario, last)
        assert done.called == (last >= len(names)), "the leader was not killed where it should"
        served = killed_on.workers.route()
        again = recovered(killed_on)
        only(again.begin(again.settle()))
        check_whole(killed_on, again)
        dropped = dead.instances.dropped + again.instances.dropped
        assert dropped == [], f"killed at {(*names, 'the end')[last]}"
        route = killed_on.workers.route()
        outcomes.add(route and (route.release, bool(route.targets)))
        if scenario in ("redeploy", "first deploy of another", "restart"):
            assert served.targets
            assert route.targets
    assert (
        outcomes
        == {
            "redeploy": {(1, True), (2, True)},
            "first deploy of another": {(1, True)},
            "restart": {(1, True)},
            "stop": {(1, True), (1, False)},
            "remove": {(1, True), None},
        }[scenario]
    )


def test_a_leader_killed_while_it_recovers_is_no_worse(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Killed half-way through a redeploy, then again at every step of the recovery."""
    half = steps_of("redeploy", tmp_path_factory.mktemp("count")).index("store.activate done") + 1
    last, done = 0, False
    while not done:
        killed_on = Ground(tmp_path_factory.mktemp("killed"))
        begun(killed_on, "redeploy", half)
        second = killed_on.leader(Steps(last))
        recovering = second.begin(second.manager.recover())
        done = recovering.called and len(second.steps.passed) <= last
        again = recovered(killed_on)
        only(again.begin(again.settle()))
        check_whole(killed_on, again)
        assert [leader.instances.dropped for leader in killed_on.leaders] == [[], [], [], []]
        assert killed_on.workers.route().release == 2
        last += 1
    assert last > 10


def test_a_deploy_cut_short_is_in_the_history_with_its_reason(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = steps_of("redeploy", tmp_path_factory.mktemp("count"))
    begun(ground, "redeploy", names.index("instance starts") + 1)

    (view,) = recovered(ground).manager.deployments()

    assert view.state is DeploymentState.RUNNING
    assert view.release.number == 1
    assert view.error["code"] == "INTERRUPTED"
