"""Plans of files, as they are written."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ploinky.cli.documents import documents
from ploinky.cli.imports.compose import plan_compose
from ploinky.cli.imports.kubernetes import plan_kubernetes
from ploinky.cli.imports.plan import Plan, Wishes
from ploinky.cli.imports.variables import Files, environment_file

Planning = Callable[..., Plan]


@pytest.fixture
def compose(tmp_path: Path) -> Planning:
    """Plans a Compose file that stands in a directory called ``my``."""

    def plan(text: str, environment: dict[str, str] | None = None, **wishes: Any) -> Plan:
        directory = tmp_path / "my"
        directory.mkdir(exist_ok=True)
        files = Files(directory, wishes.pop("allowed", ()))
        node = documents(textwrap.dedent(text), "compose.yml")[0]
        known = environment_file(files, environment or {})
        return plan_compose(node, "compose.yml", files, known, Wishes(**wishes))

    return plan


@pytest.fixture
def kubernetes() -> Planning:
    """Plans a file of Kubernetes objects."""

    def plan(*texts: str, **wishes: Any) -> Plan:
        nodes = documents("".join(map(textwrap.dedent, texts)), "k8s.yaml")
        return plan_kubernetes(nodes, "k8s.yaml", Wishes(**wishes))

    return plan


def body(plan: Plan, name: str = "") -> dict[str, Any]:
    """Give the deployment of this name, or the only one."""
    found = [one for one in plan.deployments if name in ("", one.name)]
    assert len(found) == 1, plan
    return dict(found[0].body)


def remarks(plan: Plan) -> dict[str, tuple[int, str]]:
    """Give line and reason of every remark, by its place."""
    return {one.place: (one.line, one.why) for one in (*plan.left_out, *plan.remarks)}
