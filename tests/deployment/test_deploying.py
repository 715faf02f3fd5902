"""What a deploy promises, and what a failed one leaves alone."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from ploinky.deploy_errors import (
    ImageFailed,
    InstallFailed,
    ProbeFailed,
    RepositoryUnreachable,
    SourceFailed,
    UrlRefused,
)
from ploinky.deployment.documents import parse_manifest, read_manifest_file
from ploinky.errors import (
    AgentNotFound,
    Conflict,
    EnvironmentMissing,
    ManifestInvalid,
    NotFound,
    ValidationFailed,
)
from ploinky.instance_values import RunResult
from ploinky.source_values import Repository
from ploinky.values import Address, CallAuth, DeploymentKey, DeploymentState, Kind, ReleaseState
from tests.deployment.neighbours import KEY, URL, Ground, Leader, only, with_settings


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """Give what a memory store answers."""
    return only(Deferred.fromCoroutine(work))


def releases(ground: Ground) -> list[tuple[int, ReleaseState]]:
    (deployment,) = now(ground.store.deployments())
    return [(one.number, one.state) for one in now(ground.store.releases(deployment.id))]


def test_a_deploy_serves_when_it_returns(ground: Ground, leader: Leader) -> None:
    """All workers route to the new instance, and what was built is on record."""
    view = only(leader.deploy())

    assert view.state is DeploymentState.RUNNING
    assert view.healthy_instances == 1
    assert (view.step, view.error) == ("", None)
    assert view.release.commit
    assert view.release.image == "sha256:node"
    route = ground.workers.route()
    assert {target.instance for target in route.targets} == ground.engine.running()
    assert (route.kind, route.release, route.timeout_seconds) == (Kind.TASK, 1, 30.0)
    assert releases(ground) == [(1, ReleaseState.ACTIVE)]
    assert ground.codes() == {f"{view.deployment.id}/1"}


def test_the_servers_own_routes_are_in_every_table(ground: Ground, leader: Leader) -> None:
    only(leader.deploy())

    assert all(table[0].key.path == "/management" for table in ground.workers.tables)


def test_progress_is_told_in_words_and_shown_in_the_list(ground: Ground, leader: Leader) -> None:
    leader.steps.hold("runtime.prepare")
    deploying = leader.deploy()

    (view,) = leader.manager.deployments()
    assert (view.state, view.step) == (DeploymentState.DEPLOYING, "image")
    assert "Looking for image node:18-alpine" in leader.said
    leader.steps.let_go("runtime.prepare")
    assert only(deploying).state is DeploymentState.RUNNING


def test_a_redeploy_switches_before_the_old_instances_go(ground: Ground, leader: Leader) -> None:
    """Workers route to the new ones first; then the old ones are drained, then ended."""
    only(leader.deploy())
    (old,) = ground.engine.running()
    leader.steps.hold("workers.drain")

    deploying = leader.deploy()

    assert ground.workers.route().release == 2
    assert old in ground.engine.running()
    leader.steps.let_go("workers.drain")
    only(deploying)
    assert old in ground.workers.drained
    assert old not in ground.engine.running()
    assert len(ground.engine.running()) == 1
    assert releases(ground) == [(2, ReleaseState.ACTIVE), (1, ReleaseState.RETIRED)]


def test_a_redeploy_fetches_what_was_pushed_since(ground: Ground, leader: Leader) -> None:
    """The mirror may be young for a first deploy; a redeploy always asks the remote."""
    only(leader.deploy())
    only(leader.deploy())

    assert [fresh for _, fresh in ground.source.fetched] == [False, True]


def test_a_deploy_after_a_refused_one_fetches_the_correction(
    ground: Ground, leader: Leader
) -> None:
    ground.push({"port": "eighty"})
    with pytest.raises(ManifestInvalid):
        only(leader.deploy())
    ground.push({})
    only(leader.deploy())

    assert [fresh for _, fresh in ground.source.fetched] == [False, True]


def test_a_deploy_that_never_becomes_healthy_leaves_the_old_release_serving(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    before, running, codes = ground.workers.tables[-1], ground.engine.running(), ground.codes()
    leader.instances.sick = {2}

    with pytest.raises(ProbeFailed) as caught:
        only(leader.deploy())

    assert caught.value.output == "boom"
    assert ground.workers.tables[-1] == before
    assert ground.engine.running() == running
    assert ground.codes() == codes
    (view,) = leader.manager.deployments()
    assert view.state is DeploymentState.RUNNING
    assert view.release.number == 1
    assert view.error == {
        "code": "PROBE_FAILED",
        "step": "probe",
        "failedAt": "probe",
        "message": "it never answered",
        "output": "boom",
    }
    assert releases(ground) == [(2, ReleaseState.FAILED), (1, ReleaseState.ACTIVE)]


def test_one_sick_replica_fails_the_deploy_and_takes_the_others_with_it(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy(settings={"replicas": 3}))
    running = ground.engine.running()
    leader.steps.hold("instance starts")
    deploying = leader.deploy(settings={"replicas": 3})
    assert len(ground.engine.running() - running) == 3

    leader.steps.let_go("instance starts", but_last=True)
    leader.instances.broken_starts = 1
    leader.steps.let_go("instance starts")

    with pytest.raises(ProbeFailed):
        only(deploying)
    assert ground.engine.running() == running


def test_the_next_deploy_forgets_the_failure_of_the_last(ground: Ground, leader: Leader) -> None:
    leader.instances.sick = {1}
    with pytest.raises(ProbeFailed):
        only(leader.deploy())

    view = only(leader.deploy())

    assert (view.state, view.error) == (DeploymentState.RUNNING, None)
    assert releases(ground) == [(2, ReleaseState.ACTIVE), (1, ReleaseState.FAILED)]


def test_a_first_deploy_that_fails_stays_listed_without_a_route(
    ground: Ground, leader: Leader
) -> None:
    """Users see why; callers see that nothing is there."""
    leader.instances.sick = {1}

    with pytest.raises(ProbeFailed):
        only(leader.deploy())

    (view,) = leader.manager.deployments()
    assert view.state is DeploymentState.FAILED
    assert view.error["code"] == "PROBE_FAILED"
    assert ground.workers.route() is None
    assert ground.codes() == set()


def test_install_runs_once_and_update_in_its_place_later(ground: Ground, leader: Leader) -> None:
    ground.push({"install": "npm install", "update": "npm update"})
    only(leader.deploy())
    only(leader.deploy())

    assert leader.runtime.commands == ["npm install", "npm update"]


def test_an_install_that_fails_keeps_its_output(ground: Ground, leader: Leader) -> None:
    ground.push({"install": "npm install"})
    leader.runtime.outcome = RunResult(7, "npm ERR! no such package")

    with pytest.raises(InstallFailed, match="ended with exit code 7") as caught:
        only(leader.deploy())

    assert caught.value.output == "npm ERR! no such package"
    (view,) = leader.manager.deployments()
    assert (view.error["step"], view.error["output"]) == ("install", "npm ERR! no such package")
    assert ground.queues() == set()


def test_an_image_that_does_not_exist_fails_with_the_engines_words(
    ground: Ground, leader: Leader
) -> None:
    with pytest.raises(ImageFailed, match="nope:1: not found"):
        only(leader.deploy(image="nope:1"))


def test_a_branch_that_does_not_exist_fails_in_its_step(ground: Ground, leader: Leader) -> None:
    with pytest.raises(SourceFailed, match="no branch, tag or commit 'nope'") as caught:
        only(leader.deploy(branch="nope"))

    assert caught.value.details == {"cause": "REF_NOT_FOUND"}
    (view,) = leader.manager.deployments()
    assert view.error["step"] == "source"


def test_a_repository_url_that_is_refused_leaves_nothing(ground: Ground, leader: Leader) -> None:
    ground.source.broken["ext::sh -c id"] = UrlRefused("only https, http, ssh and file")

    with pytest.raises(UrlRefused):
        only(leader.deploy(repository="ext::sh -c id"))

    assert leader.manager.deployments() == []
    assert now(ground.store.deployments()) == []


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ({"port": "eighty"}, ManifestInvalid),
        ({"env": ["TOKEN"]}, EnvironmentMissing),
        ({"static": {"root": "../dist"}}, ManifestInvalid),
    ],
)
def test_a_manifest_that_does_not_fit_changes_nothing(
    ground: Ground, leader: Leader, manifest: dict, error: type[Exception]
) -> None:
    ground.push(manifest)
    with pytest.raises(error):
        only(leader.deploy())
    assert leader.manager.deployments() == []
    assert list((ground.settings.data_directory / "deployments").iterdir()) == []

    ground.push({})
    only(leader.deploy())
    codes = ground.codes()
    ground.push(manifest)
    with pytest.raises(error):
        only(leader.deploy())
    (view,) = leader.manager.deployments()
    assert (view.state, view.error) == (DeploymentState.RUNNING, None)
    assert ground.codes() == codes


def test_an_agent_of_another_name_at_the_same_place_is_a_redeploy(
    ground: Ground, leader: Leader
) -> None:
    ground.push({}, agent="other")
    first = only(leader.deploy())

    second = only(leader.deploy(agent="other"))

    assert second.deployment.id == first.deployment.id
    assert second.deployment.agent == "other"
    assert len(leader.manager.deployments()) == 1


def test_two_deploys_of_one_deployment_run_one_after_the_other(
    ground: Ground, leader: Leader
) -> None:
    leader.steps.hold("instance starts")
    first, second = leader.deploy(), leader.deploy()
    assert leader.steps.holding("instance starts") == 1

    leader.steps.let_go("instance starts")

    assert only(first).release.number == 1
    assert only(second).release.number == 2
    assert len(ground.engine.running()) == 1


def test_deployments_do_not_wait_for_one_another(ground: Ground, leader: Leader) -> None:
    leader.steps.hold("instance starts")
    slow = leader.deploy()
    other = leader.deploy(key=DeploymentKey("localhost", "/other"))

    assert leader.steps.holding("instance starts") == 2
    leader.steps.let_go("instance starts")
    assert only(slow).state is only(other).state is DeploymentState.RUNNING


@pytest.mark.parametrize(
    "step",
    [
        "source.checkout",
        "store.save_release",
        "runtime.prepare",
        "container runs",
        "instance starts",
    ],
)
def test_a_cancelled_deploy_leaves_what_served_before(
    ground: Ground, leader: Leader, step: str
) -> None:
    ground.push({"install": "true"})
    only(leader.deploy())
    codes, table, running = ground.codes(), ground.workers.tables[-1], ground.engine.running()
    leader.steps.hold(step)
    deploying = leader.deploy()

    deploying.cancel()

    with pytest.raises(CancelledError):
        only(deploying)
    assert ground.codes() == codes
    assert ground.workers.tables[-1] == table
    assert ground.engine.running() == running
    assert leader.manager.deployments()[0].state is DeploymentState.RUNNING


@pytest.mark.parametrize("step", ["instances.end", "disk.run", "store.save_release"])
def test_a_failed_deploy_cleans_up_to_the_end_whoever_loses_patience(
    ground: Ground, leader: Leader, step: str
) -> None:
    only(leader.deploy())
    codes, running = ground.codes(), ground.engine.running()
    leader.steps.hold("instances.launch done")
    failing = leader.deploy()
    (new,) = ground.engine.running() - running
    leader.instances.tell(new, False)
    leader.steps.hold(step)
    leader.steps.let_go("instances.launch done")

    failing.cancel()
    failing.addErrback(lambda failure: failure.trap(CancelledError))
    leader.steps.let_go(step)

    only(leader.begin(leader.settle()))
    assert (ground.codes(), ground.engine.running()) == (codes, running)
    (view,) = leader.manager.deployments()
    assert view.error["code"] == "PROBE_FAILED"


def test_instances_that_cannot_be_ended_now_are_ended_with_the_next_ones(
    ground: Ground, leader: Leader
) -> None:
    """The engine may be away for a moment; a deploy does not fail for it."""
    only(leader.deploy())
    leader.instances.refusal = "the engine does not answer"
    only(leader.deploy())
    assert len(ground.engine.running()) == 2

    leader.instances.refusal = ""
    only(leader.deploy())

    assert ground.engine.running() == ground.workers.routed()
    only(leader.deploy())
    assert len(leader.instances.ended) == len(set(leader.instances.ended)) == 3


def test_a_deploy_that_has_switched_cannot_be_cancelled_any_more(
    ground: Ground, leader: Leader
) -> None:
    """Giving up the wait does not undo it half-way."""
    only(leader.deploy())
    leader.steps.hold("workers.publish")
    deploying = leader.deploy()

    deploying.cancel()
    with pytest.raises(CancelledError):
        only(deploying)
    leader.steps.let_go("workers.publish")

    only(leader.begin(leader.settle()))
    (view,) = leader.manager.deployments()
    assert (view.state, view.release.number) == (DeploymentState.RUNNING, 2)
    assert len(ground.engine.running()) == 1


def test_an_instance_that_dies_just_before_the_switch_fails_the_deploy(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    leader.steps.hold("instances.launch done")
    deploying = leader.deploy()
    (new,) = ground.engine.running() - ground.workers.routed()

    leader.instances.tell(new, False)
    leader.steps.let_go("instances.launch done")

    with pytest.raises(ProbeFailed, match="died before"):
        only(deploying)
    assert ground.workers.route().release == 1
    assert new not in ground.engine.running()


def test_old_releases_are_pruned_to_what_the_settings_keep(ground: Ground) -> None:
    with_settings(ground, releases_kept=2)
    leader = ground.leader()
    leader.begin(leader.manager.recover())
    for _ in range(4):
        view = only(leader.deploy())

    assert ground.codes() == {f"{view.deployment.id}/3", f"{view.deployment.id}/4"}


# --- what is refused before anything is begun -----------------------------------


def test_the_servers_own_paths_cannot_be_taken(leader: Leader) -> None:
    for path in ("/management", "/management/api"):
        with pytest.raises(Conflict, match="belongs to the server itself"):
            only(leader.deploy(key=DeploymentKey("localhost", path)))
    only(leader.deploy(key=DeploymentKey("localhost", "/managements")))


def test_a_domain_that_is_not_registered_is_refused_with_the_command_to_add_it(
    leader: Leader,
) -> None:
    with pytest.raises(NotFound, match=r"p-cli cloud host add api\.example\.com"):
        only(leader.deploy(key=DeploymentKey("api.example.com", "/")))


def test_unknown_settings_and_reserved_variables_are_refused(leader: Leader) -> None:
    with pytest.raises(ValidationFailed, match=r"replica: .*did you mean replicas"):
        only(leader.deploy(settings={"replica": 2}))
    with pytest.raises(ValidationFailed, match=r"environment\.AGENT_DIR: the server sets"):
        only(leader.deploy(environment={"AGENT_DIR": "/"}))
    assert leader.manager.deployments() == []


def test_only_an_admin_grants_what_may_lead_out_of_a_container(
    ground: Ground, leader: Leader
) -> None:
    asked = {"capabilities": ["SYS_ADMIN", "CHOWN"]}
    with pytest.raises(ValidationFailed, match="only an admin may grant SYS_ADMIN"):
        only(leader.deploy(settings=asked))

    only(leader.deploy(settings=asked, any_file_url=True))
    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    assert spec.capabilities == ("SYS_ADMIN", "CHOWN")


def test_no_more_instances_than_the_settings_allow(ground: Ground) -> None:
    """Old and new of one deployment overlap while it switches; that is not counted twice."""
    with_settings(ground, max_containers=3)
    leader = ground.leader()
    leader.begin(leader.manager.recover())
    other = DeploymentKey("localhost", "/other")
    only(leader.deploy(settings={"replicas": 2}))
    only(leader.deploy(settings={"replicas": 2}))

    with pytest.raises(Conflict, match="2 of at most 3 are taken"):
        only(leader.deploy(key=other, settings={"replicas": 2}))
    assert [view.deployment.key for view in leader.manager.deployments()] == [KEY]

    only(leader.begin(leader.manager.stop(KEY)))
    only(leader.deploy(key=other, settings={"replicas": 2}))
    with pytest.raises(Conflict):
        only(leader.begin(leader.manager.start(KEY)))

    only(leader.begin(leader.manager.remove(other)))
    only(leader.begin(leader.manager.start(KEY)))
    with pytest.raises(Conflict, match="2 of at most 3 are taken"):
        only(leader.deploy(key=other, settings={"replicas": 2}))


def test_a_deploy_takes_its_places_before_it_runs_and_gives_them_back_where_it_fails(
    ground: Ground,
) -> None:
    """So of two at once the second is refused, and after a failure there is room again."""
    with_settings(ground, max_containers=3)
    leader = ground.leader()
    leader.begin(leader.manager.recover())
    other = DeploymentKey("localhost", "/other")
    leader.steps.hold("runtime.prepare")
    under_way = leader.deploy(settings={"replicas": 2})
    with pytest.raises(Conflict, match="2 of at most 3 are taken"):
        only(leader.deploy(key=other, settings={"replicas": 2}))
    under_way.cancel()
    with pytest.raises(CancelledError):
        only(under_way)
    leader.steps.let_go("runtime.prepare")
    only(leader.deploy(key=other, settings={"replicas": 2}))


# --- kinds ----------------------------------------------------------------------


def test_an_external_deployment_is_routed_and_not_run(ground: Ground, leader: Leader) -> None:
    view = only(
        leader.deploy(repository="", target="http://127.0.0.1:9000", settings={"kind": "external"})
    )

    route = ground.workers.route()
    assert view.state is DeploymentState.RUNNING
    assert (route.kind, route.targets[0].address) == (Kind.EXTERNAL, Address("", "127.0.0.1", 9000))
    assert ground.engine.running() == set()
    only(leader.begin(leader.manager.stop(KEY)))
    assert "is stopped" in ground.workers.route().reason
    only(leader.begin(leader.manager.remove(KEY)))
    assert ground.workers.route() is None


@pytest.mark.parametrize(
    "target",
    [
        "ftp://host:1",
        "http://host",
        "http://host:99999",
        "http://u@host:80",
        "http://host:80/x",
        "x",
    ],
)
def test_a_target_that_leads_nowhere_is_refused(leader: Leader, target: str) -> None:
    with pytest.raises(ValidationFailed, match="target"):
        only(leader.deploy(repository="", target=target))


def test_only_an_admin_may_lead_to_a_socket_and_never_to_the_servers_own(
    ground: Ground, leader: Leader
) -> None:
    """Behind a socket may be a container engine, or this server's own door."""
    own = f"unix:{ground.settings.run_directory}/control.sock"
    with pytest.raises(ValidationFailed, match="only an admin"):
        only(leader.deploy(repository="", target="unix:/run/docker.sock"))
    with pytest.raises(ValidationFailed, match="belongs to the server itself"):
        only(leader.deploy(repository="", target=own, any_file_url=True))
    only(leader.deploy(repository="", target="unix:/run/app.sock", any_file_url=True))
    assert ground.workers.route().targets[0].address.path == "/run/app.sock"


def test_an_image_alone_is_deployed_as_a_service(ground: Ground, leader: Leader) -> None:
    view = only(leader.deploy(repository="", agent="web", image="nginx", settings={"port": 80}))

    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    assert (spec.kind, spec.image, spec.code_directory) == (Kind.SERVICE, "sha256:nginx", "")
    assert (view.release.commit, spec.port) == ("", 80)
    assert ground.workers.route().kind is Kind.SERVICE


def test_what_the_manifest_says_reaches_route_and_instance(ground: Ground, leader: Leader) -> None:
    ground.push(
        {
            "auth": "key",
            "timeout": 5,
            "concurrency": 7,
            "transport": "file",
            "engine": "sh",
            "env": {"MODE": "slow", "TOKEN": None},
            "resources": {"memory": "256m", "cpus": 0.5},
        }
    )
    only(leader.deploy(environment={"TOKEN": "s3cret"}, settings={"resources": {"cpus": 2}}))

    route = ground.workers.route()
    assert (route.auth, route.timeout_seconds, route.concurrency) == (CallAuth.KEY, 5.0, 7)
    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    assert spec.resources.memory_bytes == 256 * 1024 * 1024
    assert spec.resources.cpus == 2
    assert spec.environment == {
        "MODE": "slow",
        "TOKEN": "s3cret",
        "PLOINKY_AGENT": "demo",
        "PLOINKY_DOMAIN": "localhost",
        "PLOINKY_PATH": "/demo",
        "PLOINKY_RELEASE": "1",
        "PLOINKY_TRANSPORT": "file",
        "PLOINKY_CONCURRENCY": "7",
        "PLOINKY_ENGINE": "sh",
    }
    assert "s3cret" not in repr(spec)


def test_commands_that_the_deployment_overrides_are_what_agentcore_reads(
    ground: Ground, leader: Leader
) -> None:
    ground.push({"commands": {"a": "echo a", "b": "echo b"}})
    # Whatever else a repository has, it is not in the way.
    ground.source.push(URL, {"demo/.manifest.json.new/file": "", "demo/manifest.json.new": ""})

    only(leader.deploy(settings={"commands": {"b": "echo better"}}))

    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    raw = read_manifest_file(Path(spec.code_directory))
    assert raw is not None
    assert parse_manifest(raw)["commands"] == {"a": "echo a", "b": "echo better"}
    assert len(ground.codes()) == 1


# --- where the code is ----------------------------------------------------------


def test_removing_a_repository_leaves_deployments_running(ground: Ground, leader: Leader) -> None:
    now(ground.repositories.add_repository(Repository("Demo", URL)))
    only(leader.deploy(repository=""))

    now(ground.repositories.remove_repository("Demo"))
    ground.source.origins.clear()

    assert leader.manager.deployments()[0].state is DeploymentState.RUNNING
    assert only(leader.begin(leader.manager.restart(KEY))).healthy_instances == 1


def test_an_unreachable_repository_fails_the_deploy_that_names_it(
    ground: Ground, leader: Leader
) -> None:
    ground.source.broken[URL] = RepositoryUnreachable("connection refused")

    with pytest.raises(SourceFailed, match="connection refused"):
        only(leader.deploy())


def test_an_agent_that_is_nowhere_is_told_so_and_leaves_nothing(leader: Leader) -> None:
    with pytest.raises(AgentNotFound, match="no repository is registered"):
        only(leader.deploy(repository=""))
    assert leader.manager.deployments() == []


def test_a_release_is_restarted_from_its_own_image_where_that_is_still_here(
    ground: Ground, leader: Leader
) -> None:
    only(leader.deploy())
    leader.runtime.images["node:18-alpine"] = "sha256:newer"
    leader.runtime.images["kept"] = "sha256:node"

    only(leader.begin(leader.manager.restart(KEY)))
    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    assert spec.image == "sha256:node"

    del leader.runtime.images["kept"]
    only(leader.begin(leader.manager.restart(KEY)))
    (spec,) = (ground.engine.specs[one] for one in ground.engine.running())
    assert spec.image == "sha256:newer"
