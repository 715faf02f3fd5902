"""`p-cli cloud import`: the plan a person reads, what is sent, and what a dry run gives back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ploinky.cli.documents import documents, plain
from tests.cli.conftest import StandIn, ended

Typed = Callable[..., Result]
SHOP = """\
name: shop
services:
  web:
    image: nginx:alpine
    ports: ["8080:80"]
    environment: {PASSWORD: hunter2}
    networks: [front]
    depends_on: [api]
  api: {image: api:1}
  db: {image: "postgres:16"}
networks: {front: }
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {token: t0ps3cret}
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  containers: [{name: app, image: x, envFrom: [{secretRef: {name: s}}]}]
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(SHOP)
    (tmp_path / "k8s.yaml").write_text(SECRET)


def test_what_maps_is_deployed_and_the_rest_is_said(stand_in: StandIn, typed: Typed) -> None:
    """In order, with a plan that shows no values of variables."""
    done = typed("import", "compose.yml")
    assert ended(done) == (0, "")
    sent = [(path, body["path"], body["agent"]) for _, path, body in stand_in.asked]
    assert sent == [("deployments", "/api", "shop-api"), ("deployments", "/web", "shop-web")]
    assert "2 of 3 can be deployed" in done.stdout
    assert "compose.yml:10  services.db" in done.stdout
    assert "compose.yml:7  services.web.networks" in done.stdout
    assert "instead: " in done.stdout
    assert "hunter2" not in done.output
    assert "2 of 2 done." in done.stderr


def test_a_dry_run_gives_what_batch_takes(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """The same is deployed whether at once or by way of a file."""
    typed("import", "compose.yml")
    at_once, stand_in.asked = stand_in.asked, []
    for options, name in (((), "cloud.yml"), (("--json",), "cloud.json")):
        done = typed("import", "compose.yml", "--dry-run", *options)
        assert ended(done) == (0, "")
        assert stand_in.asked == []
        text = done.stdout
        if options:
            assert json.loads(text)["leftOut"][0]["place"] == "services.db"
            text = json.dumps(json.loads(text)["deployments"])
        (tmp_path / name).write_text(text)
        assert ended(typed("batch", name)) == (0, "")
        assert stand_in.asked == at_once
        stand_in.asked.clear()


def test_a_dry_run_of_one_gives_what_config_takes(
    stand_in: StandIn, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secrets are left out, and come from the environment."""
    done = typed("import", "k8s.yaml", "--dry-run")
    assert "t0ps3cret" not in done.output
    assert plain(documents(done.stdout, "f")[0])["secrets"] == {"token": None}
    (tmp_path / "cloud.yml").write_text(done.stdout)
    status, message = ended(typed("deploy", "--config", "cloud.yml"))
    assert status == 5
    assert "secrets.token" in message
    monkeypatch.setenv("token", "fr0m-environment")
    assert ended(typed("deploy", "--config", "cloud.yml", "localhost", "/other")) == (0, "")
    [(_, _, body)] = stand_in.asked
    assert (body["path"], body["secrets"]) == ("/other", {"token": "fr0m-environment"})
    assert "t0ps3cret" in typed("import", "k8s.yaml", "--dry-run", "--show-secrets").stdout


def test_secrets_are_sent_as_such(stand_in: StandIn, typed: Typed) -> None:
    """And shown nowhere, in JSON neither."""
    for options in ((), ("--json",)):
        done = typed("import", "k8s.yaml", *options)
        assert ended(done) == (0, "")
        assert stand_in.asked.pop()[2]["secrets"] == {"token": "t0ps3cret"}
    plan = json.loads(done.stdout)
    assert plan["deployments"][0]["secrets"] == {"token": None}
    assert plan["results"][0]["ok"]


def test_nothing_is_deployed_where_something_is_wrong(
    stand_in: StandIn, typed: Typed, tmp_path: Path
) -> None:
    """A domain that is not there, a file that is invalid, `--strict`, nothing that maps."""
    status, message = ended(typed("import", "compose.yml", "web=b.example/x", "api=a.example/y"))
    assert (status, message) == (5, "not registered, or not enabled: a.example, b.example")
    assert ended(typed("import", "compose.yml", "--strict"))[0] == 5
    (tmp_path / "bad.yml").write_text(SHOP.replace('"8080:80"', "http"))
    assert ended(typed("import", "bad.yml"))[0] == 5
    (tmp_path / "db.yml").write_text("services: {db: {image: postgres}}")
    status, message = ended(typed("import", "db.yml"))
    assert status == 5
    assert "nothing of it can be deployed" in message
    assert stand_in.asked == []


def test_a_failed_deploy_ends_it_or_not(stand_in: StandIn, typed: Typed) -> None:
    """What others depend on comes first, so that going on is for who asks for it."""
    stand_in.refused["/api"] = (500, {"code": "START_FAILED", "message": "no"})
    done = typed("import", "compose.yml")
    assert ended(done) == (4, "failed: compose.yml:9")
    assert "0 of 2 done, 1 failed, 1 not begun." in done.stderr
    done = typed("import", "compose.yml", "--keep-going")
    assert ended(done) == (4, "failed: compose.yml:9")
    assert "1 of 2 done, 1 failed." in done.stderr


def test_an_image_stays_an_image(stand_in: StandIn, typed: Typed) -> None:
    """A registered agent of the same name is not deployed in its place."""
    stand_in.agents = ["shop-web", "group/shop-api"]
    typed("import", "compose.yml")
    agents = [body["agent"] for _, _, body in stand_in.asked]
    assert agents == ["shop-api-image", "shop-web-image"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compose.yml", "web"), "expected NAME=/PATH"),
        (("compose.yml", "web=x"), "expected NAME=/PATH"),
        (("compose.yml", "--port", "web=no"), "expected NAME=PORT"),
        (("compose.yml", "--format", "k8s"), "compose.yml:1: "),
        (("other.yml",), "neither the services"),
    ],
)
def test_what_is_typed_wrongly(
    typed: Typed, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Is said before anything is done."""
    (tmp_path / "other.yml").write_text("a: 1\n")
    status, message = ended(typed("import", *words))
    assert status == 5
    assert said in message


def test_a_file_from_input(stand_in: StandIn, typed: Typed) -> None:
    """Both kinds are told by what they hold."""
    assert ended(typed("import", "-", stdin=SECRET)) == (0, "")
    assert ended(typed("import", "-", "web=/", stdin=SHOP)) == (0, "")
    assert [body["path"] for _, _, body in stand_in.asked] == ["/app", "/api", "/"]


def test_a_template_is_told_from_a_mistake(typed: Typed, tmp_path: Path) -> None:
    """Charts are rendered first."""
    (tmp_path / "chart.yaml").write_text("kind: Pod\nmetadata:\n  name: {{ .Values.name }}\n")
    done = typed("import", "chart.yaml")
    assert ended(done)[1].startswith("chart.yaml:3: ")
    assert "helm template" in done.exception.hint  # type: ignore[union-attr]
