"""Things to do one after another, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from attrs import define, field, frozen

from ploinky.cli import output
from ploinky.cli.failures import ERROR, CommandFailed


@frozen
class Operation:
    """One thing to do.

    Attributes:
        place: File and line that ask for it.
        title: For people; without values that may be secret.
        run: Does it, and gives what a program would read of it, or None where it printed that
            itself; told whether a program reads, it prints nothing.
        words: Makes of what `run` gave what a person reads.
    """

    place: str
    title: str
    run: Callable[[bool], Any] = field(repr=False)
    words: Callable[[Any], str] = field(repr=False)


@define
class _Outcome:
    operation: Operation
    answer: Any = None
    error: CommandFailed | None = None

    def as_json(self) -> dict[str, Any]:
        said = {"place": self.operation.place, "operation": self.operation.title}
        if self.error is None:
            return {**said, "ok": True, "answer": self.answer}
        return {**said, "ok": False, "error": self.error.document()}


def run_all(
    operations: Sequence[Operation],
    *,
    keep_going: bool,
    want_json: bool,
    document: Mapping[str, Any] | None = None,
    hint: str = "",
) -> None:
    """Do them in their order, telling of each on standard error.

    Args:
        keep_going: Go on after one that failed.
        want_json: Print JSON on standard output, once: what came of each.
        document: What that JSON begins with.
        hint: What to do after a failure.

    Raises:
        CommandFailed: One or more failed; its exit status is the highest of theirs.
    """
    done: list[_Outcome] = []
    try:
        for number, operation in enumerate(operations, 1):
            click.echo(f"[{number}/{len(operations)}] {operation.title}", err=True)
            done.append(_run(operation, want_json))
            if done[-1].error is not None and not keep_going:
                break
    finally:  # also when it is interrupted
        click.echo(_summary(done, len(operations)), err=True)
        if want_json:
            output.as_json({**(document or {}), "results": [one.as_json() for one in done]})
    failed = {one.operation.place: one.error for one in done if one.error is not None}
    if failed:
        raise CommandFailed(
            f"failed: {', '.join(failed)}",
            hint=hint,
            exit_code=max(error.exit_status for error in failed.values()),
        )


def _run(operation: Operation, want_json: bool) -> _Outcome:
    try:
        answer = operation.run(want_json)
    except CommandFailed as error:
        error.show()
        return _Outcome(operation, error=error)
    except click.ClickException as error:
        error.show()
        return _Outcome(operation, error=CommandFailed(error.format_message(), exit_code=ERROR))
    except click.Abort:
        failure = CommandFailed("it asks for something, and nobody is there to answer")
        failure.show()
        return _Outcome(operation, error=failure)
    if answer is not None and not want_json:
        click.echo(operation.words(answer))
    return _Outcome(operation, answer)


def _summary(done: Sequence[_Outcome], of: int) -> str:
    failed = sum(one.error is not None for one in done)
    parts = [f"{len(done) - failed} of {of} done"]
    if failed:
        parts.append(f"{failed} failed")
    if len(done) < of:
        parts.append(f"{of - len(done)} not begun")
    return ", ".join(parts) + "."
