"""What else happens to a deployment: restart, stop, start, removal, sickness, the server's stop."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.defer import CancelledError

from ploinky.deploy_errors import ProbeFailed
from ploinky.errors import Conflict, NotFound, StateUnusable
from ploinky.values import Address, DeploymentKey, DeploymentState, ReleaseState
from tests.deployment.neighbours import KEY, Ground, Leader, only


def test_a_restart_brings_new_instances_in_before_the_old_ones_go(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy(settings={"replicas": 2}))
    old = ground.engine.running()
    leader.steps.hold("instance starts")

    restarting = leader.begin(leader.manager.restart(KEY))
    assert ground.workers.routed() == old
    leader.steps.let_go("instance starts")

    assert only(restarting).state is DeploymentState.RUNNING
    assert ground.workers.routed() == ground.engine.running()
    assert not ground.engine.running() & old
    assert ground.workers.drained >= old


def test_a_restart_that_fails_leaves_the_old_instances_serving(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    old = ground.engine.running()
    leader.instances.sick = {1}

    with pytest.raises(ProbeFailed):
        only(leader.begin(leader.manager.restart(KEY)))

    assert ground.workers.routed() == ground.engine.running() == old
    assert leader.manager.deployments()[0].state is DeploymentState.RUNNING


def test_a_stopped_deployment_says_so_to_its_callers_and_starts_again(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())

    stopped = only(leader.begin(leader.manager.stop(KEY)))

    assert stopped.state is DeploymentState.STOPPED
    assert ground.workers.route().reason == "localhost/demo is stopped"
    assert ground.engine.running() == set()
    started = only(leader.begin(leader.manager.start(KEY)))
    assert (started.state, started.healthy_instances) == (DeploymentState.RUNNING, 1)
    assert ground.workers.routed() == ground.engine.running()


def test_stop_and_start_of_what_is_so_already_do_nothing(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    running = ground.engine.running()
    only(leader.begin(leader.manager.start(KEY)))
    assert ground.engine.running() == running

    only(leader.begin(leader.manager.stop(KEY)))
    assert only(leader.begin(leader.manager.stop(KEY))).state is DeploymentState.STOPPED


def test_a_start_that_fails_leaves_it_stopped(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))
    leader.instances.sick = {1}

    with pytest.raises(ProbeFailed):
        only(leader.begin(leader.manager.start(KEY)))

    assert leader.manager.deployments()[0].state is DeploymentState.STOPPED


def test_a_deploy_of_a_stopped_deployment_starts_it(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))

    assert only(leader.deploy()).state is DeploymentState.RUNNING
    assert ground.workers.routed() == ground.engine.running()


def test_a_failed_deploy_of_a_stopped_deployment_leaves_it_stopped(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))
    leader.instances.sick = {2}

    with pytest.raises(ProbeFailed):
        only(leader.deploy())

    assert leader.manager.deployments()[0].state is DeploymentState.STOPPED
    assert "is stopped" in ground.workers.route().reason


def test_a_stop_that_comes_while_deploying_stops_the_new_release(
    ground: Ground, leader: Leader
) -> None:
    leader.steps.hold("instance starts")
    deploying = leader.deploy()
    stopping = leader.begin(leader.manager.stop(KEY))

    leader.steps.let_go("instance starts")

    assert only(deploying).state is DeploymentState.RUNNING
    assert only(stopping).state is DeploymentState.STOPPED
    assert ground.engine.running() == set()


def test_what_makes_no_sense_now_says_what_would(leader: Leader) -> None:
    leader.instances.sick = {1}
    with pytest.raises(ProbeFailed):
        only(leader.deploy())
    for work in (leader.manager.restart, leader.manager.stop, leader.manager.start):
        with pytest.raises(Conflict, match="has never served: deploy it again"):
            only(leader.begin(work(KEY)))

    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))
    with pytest.raises(Conflict, match="is stopped: start it"):
        only(leader.begin(leader.manager.restart(KEY)))


def test_a_key_that_is_not_deployed_is_not_found(leader: Leader) -> None:
    manager = leader.manager
    for work in (manager.restart, manager.stop, manager.start, manager.remove):
        with pytest.raises(NotFound, match="nothing is deployed at localhost/demo"):
            only(leader.begin(work(KEY)))


# --- removal --------------------------------------------------------------------


def test_a_removed_deployment_leaves_nothing_but_its_volumes(
    ground: Ground, leader: Leader
) -> None:
    view = only(leader.deploy())
    kept = ground.settings.data_directory / "deployments" / view.deployment.id / "volumes" / "db"
    kept.mkdir(parents=True)
    old = ground.engine.running()

    only(leader.begin(leader.manager.remove(KEY)))

    assert leader.manager.deployments() == []
    assert ground.workers.route() is None
    assert ground.workers.drained >= old
    assert ground.engine.containers == {}
    assert ground.codes() == set()
    assert ground.queues() == set()
    assert only(leader.begin(ground.store.deployments())) == []
    assert kept.is_dir()


@pytest.mark.parametrize(
    "step",
    [
        "source.resolve",
        "source.checkout",
        "store.save_deployment",
        "runtime.prepare",
        "instance starts",
        "store.activate",
        "workers.publish",
    ],
)
def test_a_removal_that_comes_while_deploying_ends_the_deploy_wherever_it_is(
    ground: Ground, leader: Leader, step: str
) -> None:
    leader.steps.hold(step)
    deploying = leader.deploy()
    removing = leader.begin(leader.manager.remove(KEY))
    assert leader.manager.deployments() == [] or (
        leader.manager.deployments()[0].state is DeploymentState.REMOVING
    )

    leader.steps.let_go(step)

    only(removing)
    if step not in ("store.activate", "workers.publish"):  # else it was past its switch
        with pytest.raises(Conflict, match="localhost/demo was removed meanwhile"):
            only(deploying)
    assert leader.manager.deployments() == []
    assert ground.engine.containers == {}
    assert ground.codes() == set()
    assert only(leader.begin(ground.store.deployments())) == []


def test_work_that_waits_when_the_removal_comes_is_refused_and_later_deploys_begin_anew(
    ground: Ground, leader: Leader
) -> None:
    first = only(leader.deploy())
    leader.steps.hold("instance starts")
    leader.deploy().addErrback(lambda failure: failure.trap(CancelledError))
    waiting = leader.deploy()
    leader.steps.hold("workers.drain")
    removing = leader.begin(leader.manager.remove(KEY))
    later = leader.deploy()
    second_removal = leader.begin(leader.manager.remove(KEY))
    with pytest.raises(Conflict, match="is being removed"):
        only(waiting)

    leader.steps.let_go("workers.drain")
    only(removing)
    leader.steps.let_go("instance starts")

    view = only(later)
    only(second_removal)
    assert view.deployment.id != first.deployment.id
    assert leader.manager.deployments()[0].deployment.id == view.deployment.id


@pytest.mark.parametrize("state", [DeploymentState.RUNNING, DeploymentState.STOPPED])
def test_a_removal_that_cannot_be_put_on_record_changes_nothing(
    ground: Ground, leader: Leader, state: DeploymentState
) -> None:
    """It is no more shown as being removed, nor are deploys refused for it."""
    only(leader.deploy())
    if state is DeploymentState.STOPPED:
        only(leader.begin(leader.manager.stop(KEY)))
    running = ground.engine.running()
    leader.steps.hold("store.save_deployment")
    removing = leader.begin(leader.manager.remove(KEY))
    leader.steps.break_off("store.save_deployment", StateUnusable("disk is full"))

    with pytest.raises(StateUnusable):
        only(removing)
    assert leader.manager.deployments()[0].state is state
    assert ground.engine.running() == running
    assert only(leader.deploy()).release.number == 2
    only(leader.begin(leader.manager.remove(KEY)))
    assert leader.manager.deployments() == []


# --- sickness -------------------------------------------------------------------


def test_a_sick_instance_gets_no_calls_until_it_is_well_again(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy(settings={"replicas": 2}))
    sick, well = sorted(ground.engine.running())

    leader.instances.tell(sick, False)
    assert ground.workers.routed() == {well}
    assert leader.manager.deployments()[0].healthy_instances == 1
    leader.instances.tell(well, False)
    assert ground.workers.route().targets == ()
    assert "none of its instances is healthy" in ground.workers.route().reason
    assert leader.manager.deployments()[0].state is DeploymentState.UNHEALTHY

    leader.instances.tell(sick, True)
    assert ground.workers.routed() == {sick}


def test_a_service_that_comes_back_at_another_address_is_reached_there(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    (instance,) = ground.engine.running()
    leader.instances.tell(instance, False)
    leader.instances.addresses[instance] = Address("", "172.17.0.9", 80)

    leader.instances.tell(instance, True)

    assert ground.workers.route().targets[0].address == Address("", "172.17.0.9", 80)


def test_tables_that_are_due_at_once_are_sent_as_one(ground: Ground, leader: Leader) -> None:
    only(leader.deploy(settings={"replicas": 4}))
    leader.steps.hold("workers.publish")
    before = len(ground.workers.tables)
    for instance in sorted(ground.engine.running()):
        leader.instances.tell(instance, False)

    leader.steps.let_go("workers.publish")

    assert len(ground.workers.tables) == before + 2
    assert ground.workers.route().targets == ()


# --- the server's stop ----------------------------------------------------------


def test_the_servers_stop_cancels_deploys_and_leaves_instances_running(
    ground: Ground, leader: Leader
) -> None:
    other = DeploymentKey("localhost", "/other")
    only(leader.deploy())
    running = ground.engine.running()
    leader.steps.hold("instance starts")
    deploying = leader.deploy(key=other)

    only(leader.manager.stopService())

    with pytest.raises(CancelledError):
        only(deploying)
    assert ground.engine.running() == running
    assert ground.codes() == {f"{leader.manager.deployments()[0].deployment.id}/1"}
    failed = leader.manager.deployments()[1]
    assert failed.state is DeploymentState.FAILED
    assert failed.error["code"] == "CANCELLED"
    assert failed.release.state is ReleaseState.FAILED
    with pytest.raises(CancelledError):
        only(leader.deploy())


def test_the_servers_stop_waits_for_a_switch_that_has_begun(ground: Ground, leader: Leader) -> None:
    leader.steps.hold("workers.publish")
    deploying = leader.deploy()
    stopping = leader.manager.stopService()
    assert not stopping.called

    leader.steps.let_go("workers.publish")

    only(stopping)
    assert only(deploying).state is DeploymentState.RUNNING


def test_new_settings_hold_at_once_for_what_is_deployed(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    before = ground.engine.running()
    quick = attrs.evolve(ground.settings, task_timeout_ms=1500)

    only(leader.begin(leader.manager.adopt(quick)))

    assert ground.workers.route().timeout_seconds == 1.5
    assert ground.workers.routed() == ground.engine.running() == before


def test_new_settings_leave_what_is_stopped_stopped(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())
    only(leader.begin(leader.manager.stop(KEY)))
    only(leader.begin(leader.manager.adopt(attrs.evolve(ground.settings, max_containers=1))))
    assert ground.workers.route().reason == "localhost/demo is stopped"
    with pytest.raises(Conflict, match="maxContainers"):
        only(leader.deploy(settings={"replicas": 2}))
