"""Static deployments: files of a release, with nothing that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ploinky.deploy_errors import InstallFailed, ProbeFailed
from ploinky.errors import ValidationFailed
from ploinky.instance_values import RunResult
from ploinky.testing.git import File
from ploinky.values import DeploymentState, Files, Kind
from tests.deployment.neighbours import URL, Ground, Leader, only, with_settings

SITE = {"demo/dist/index.html": "<h1>home</h1>"}


def push(ground: Ground, files: dict[str, Any], **manifest: Any) -> None:
    ground.push({"static": {"root": "dist"}, **manifest})
    ground.source.push(URL, files)


def files_of(ground: Ground) -> Files:
    """What the workers serve."""
    (target,) = ground.workers.route().targets
    return target.files


def test_a_site_is_served_without_image_or_instance(ground: Ground, leader: Leader) -> None:
    push(ground, SITE, static={"root": "dist", "spa": True})
    leader.runtime.images.clear()

    view = only(leader.deploy())

    assert (view.state, view.release.image) == (DeploymentState.RUNNING, "")
    assert ground.engine.containers == {}
    assert ground.workers.route().kind is Kind.STATIC
    code = ground.settings.data_directory / "deployments" / view.deployment.id / "releases/1"
    assert files_of(ground) == Files(str(code), "dist", spa=True)


def test_what_install_builds_is_served(ground: Ground, leader: Leader) -> None:
    push(ground, {}, install="npm run build")
    leader.runtime.builds = {"dist/index.html": "built"}

    only(leader.deploy())

    assert leader.runtime.commands == ["npm run build"]
    files = files_of(ground)
    assert Path(files.directory, files.root, "index.html").read_text() == "built"


def test_a_failed_build_leaves_the_old_files_served(ground: Ground, leader: Leader) -> None:
    push(ground, SITE)
    only(leader.deploy())
    push(ground, {}, install="npm run build")
    leader.runtime.outcome = RunResult(1, "no such module")

    with pytest.raises(InstallFailed) as caught:
        only(leader.deploy())

    assert caught.value.output == "no such module"
    assert files_of(ground).directory.endswith("/1")


@pytest.mark.parametrize(
    ("files", "static", "said"),
    [
        ({"demo/public/a.txt": "a"}, {"root": "dist"}, "the agent has manifest.json, public"),
        ({"demo/dist": "a file"}, {"root": "dist"}, "a file"),
        ({"demo/dist/.keep": ""}, {"root": "dist"}, "no file in dist"),
        ({}, {"root": "."}, "no file in the agent's directory"),
        ({"demo/dist/main.html": ""}, {"root": "dist", "spa": True}, "it has main.html"),
        ({"demo/dist": File(b"../../../../..", "120000")}, {"root": "dist"}, "leads out"),
    ],
)
def test_files_that_cannot_be_served_say_what_to_do(
    ground: Ground, leader: Leader, files: dict[str, Any], static: dict[str, Any], said: str
) -> None:
    """The deploy fails at its probe, and what served before still does."""
    push(ground, files, static=static)

    with pytest.raises(ProbeFailed, match=said):
        only(leader.deploy())

    assert ground.workers.route() is None
    (view,) = leader.manager.deployments()
    assert (view.state, view.error["step"]) == (DeploymentState.FAILED, "probe")
    assert leader.instances.ended == []


def test_an_image_alone_has_no_files(ground: Ground, leader: Leader) -> None:
    with pytest.raises(ValidationFailed, match="an image alone"):
        only(
            leader.deploy(agent="nginx", repository="", image="nginx", settings={"kind": "static"})
        )


def test_old_files_go_only_once_no_answer_needs_them(ground: Ground, leader: Leader) -> None:
    """The requests that are in hand at the old release are waited for before its code is deleted."""
    with_settings(ground, releases_kept=1)
    leader = ground.leader()
    only(leader.begin(leader.manager.recover()))
    push(ground, SITE)
    view = only(leader.deploy())
    leader.steps.hold("workers.drain")

    deploying = leader.deploy()

    assert ground.codes() == {f"{view.deployment.id}/1", f"{view.deployment.id}/2"}
    leader.steps.let_go("workers.drain")
    only(deploying)
    assert ground.codes() == {f"{view.deployment.id}/2"}
    assert ground.workers.drained == {f"{view.deployment.id}.1"}


def test_stop_start_restart_and_remove(ground: Ground, leader: Leader) -> None:
    push(ground, SITE)
    view = only(leader.deploy())
    key = view.deployment.key

    only(leader.begin(leader.manager.stop(key)))
    assert ground.workers.route().targets == ()
    assert "stopped" in ground.workers.route().reason
    only(leader.begin(leader.manager.start(key)))
    served = files_of(ground)
    only(leader.begin(leader.manager.restart(key)))
    assert files_of(ground) == served

    only(leader.begin(leader.manager.remove(key)))
    assert ground.workers.route() is None
    assert ground.codes() == set()
    assert leader.instances.ended == []


def test_a_new_leader_serves_the_same_files(ground: Ground, leader: Leader) -> None:
    """Under the same name, so that what an old leader's workers have in hand can be drained."""
    push(ground, SITE)
    only(leader.deploy())
    before = ground.workers.route()

    again = ground.leader()
    only(again.begin(again.manager.recover()))

    assert ground.workers.route() == before
    assert [view.state for view in again.manager.deployments()] == [DeploymentState.RUNNING]


def test_files_that_somebody_took_away_are_unhealthy(ground: Ground, leader: Leader) -> None:
    """The server starts all the same; what is wrong is shown, and in the log."""
    push(ground, SITE)
    only(leader.deploy())
    files = files_of(ground)
    Path(files.directory, "dist/index.html").unlink()

    again = ground.leader()
    only(again.begin(again.manager.recover()))

    assert [view.state for view in again.manager.deployments()] == [DeploymentState.UNHEALTHY]
    assert ground.workers.route().targets == ()


def test_sites_take_no_places(ground: Ground, leader: Leader) -> None:
    """`maxContainers` is about containers."""
    with_settings(ground, max_containers=0)
    leader = ground.leader()
    only(leader.begin(leader.manager.recover()))
    push(ground, SITE, replicas=3)
    assert only(leader.deploy()).state is DeploymentState.RUNNING
