"""A plan as a person reads it; values of variables are not shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import click

from ploinky.cli.imports.parts import Remark
from ploinky.cli.imports.plan import Plan, Planned

_KINDS = {"compose": "Docker Compose", "k8s": "Kubernetes"}
_WIDTH = 96


def show_plan(plan: Plan, file: IO[str]) -> None:
    """Print what is deployed, what is left out, what does not map, and what will differ."""
    deployed, of = len(plan.deployments), len(plan.deployments) + len(plan.left_out)
    _title(f"{plan.file} ({_KINDS[plan.kind]}): {deployed} of {of} can be deployed", file)
    for one in plan.deployments:
        click.echo(
            f"\n  {click.style(one.where, bold=True)}   {one.name}, line {one.line}", file=file
        )
        for name, value in _lines(one):
            click.echo(f"    {name:<12} {value}", file=file)
    if plan.borrowed:
        click.echo("", file=file)
        _paragraph(f"Values from .env or your environment: {', '.join(plan.borrowed)}", "  ", file)
    _section("Not deployed", plan.left_out, file)
    _section("Does not map", [one for one in plan.remarks if one.is_lost], file)
    _section("Differs", [one for one in plan.remarks if not one.is_lost], file)
    click.echo("", file=file)


def _title(text: str, file: IO[str]) -> None:
    click.echo(click.style(text, bold=True), file=file)


def _lines(planned: Planned) -> Iterable[tuple[str, str]]:
    body = planned.body
    yield "image", body["image"]
    for name in ("entrypoint", "command"):
        if name in body:
            yield name, textwrap.shorten(" ".join(body[name]), _WIDTH - 20)
    yield "port", str(body.get("port", "the one that the image declares"))
    yield "healthy", f"GET {body.get('health', {}).get('path', '/')} gives 2xx or 3xx"
    if "replicas" in body:
        yield "instances", str(body["replicas"])
    if "resources" in body:
        yield (
            "limits",
            ", ".join(f"{name} {_amount(value)}" for name, value in body["resources"].items()),
        )
    for name in ("user", "capabilities"):
        if name in body:
            yield (
                name,
                body[name] if isinstance(body[name], str) else " ".join(body[name]) or "none",
            )
    if "volumes" in body:
        yield "volumes", ", ".join(f"{one['name']} at {one['path']}" for one in body["volumes"])
    for name, title in (("environment", "variables"), ("secrets", "secrets")):
        if body.get(name):
            yield title, _names(body[name])


def _names(variables: Mapping[str, Any]) -> str:
    return textwrap.shorten(", ".join(variables), _WIDTH - 20, placeholder=" ...")


def _amount(value: float) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2)):
        if value >= size and value % size == 0:
            return f"{int(value // size)} {unit}"
    return f"{value:g}" if value < 1024 else str(int(value))


def _section(title: str, remarks: Sequence[Remark], file: IO[str]) -> None:
    if not remarks:
        return
    click.echo("", file=file)
    _title(title, file)
    for one in remarks:
        click.echo(f"  {one.file}:{one.line}  {one.place}", file=file)
        _paragraph(one.why, "      ", file)
        if one.instead:
            _paragraph(one.instead, "      instead: ", file)


def _paragraph(text: str, indent: str, file: IO[str]) -> None:
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        click.echo(line, file=file)
