"""``p-cli``: the tree of commands, and the one place where a failure ends a command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from ploinky.cli import (
    agents,
    backup,
    batch,
    calls,
    completion,
    deployments,
    events,
    glance,
    hosts,
    importing,
    keys,
    logs,
    metrics,
    output,
    repositories,
    rollouts,
    server,
    session,
    settings,
    tasks,
)
from ploinky.cli.failures import CONFIGURATION, ERROR, CommandFailed, is_debugging


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ploinky", prog_name="p-cli")
def cli() -> None:
    """Ploinky Cloud: deploy agents from Git repositories and call them."""


@cli.group()
def cloud() -> None:
    """Run a server, and manage one."""


for command in (
    *server.COMMANDS,
    *session.COMMANDS,
    hosts.host,
    repositories.repo,
    agents.agent,
    *deployments.COMMANDS,
    *rollouts.COMMANDS,
    batch.batch,
    importing.import_,
    glance.show,
    *keys.COMMANDS,
    *settings.COMMANDS,
    *backup.COMMANDS,
    metrics.metrics,
    logs.logs,
    tasks.tasks,
    events.events,
    calls.call,
):
    cloud.add_command(command)
cli.add_command(calls.client)


cli.add_command(completion.completion)


def run(arguments: Sequence[str], **context: Any) -> int:
    """Run one command; give the contract's exit status.  Whatever goes wrong is told, not raised.

    Args:
        context: Of the command, for click.
    """
    try:
        status = cli.main(list(arguments), "p-cli", standalone_mode=False, **context)
        sys.stdout.flush()  # a pipe that nobody reads any more shows here, not at the exit
    except click.ClickException as error:
        return _told(error, "--json" in arguments)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except OSError as error:  # a disk that is full, a file that may not be read
        why = error.strerror or str(error)
        failed = CommandFailed(f"{error.filename}: {why}" if error.filename else why)
        failed.__cause__ = error
        return _told(failed, "--json" in arguments)
    except Exception as error:
        bug = CommandFailed(
            f"{type(error).__name__}: {error}",
            hint="this is a bug in p-cli; DEBUG=1 shows where",
        )
        bug.__cause__ = error
        return _told(bug, "--json" in arguments)
    return status if isinstance(status, int) else 0


def _told(error: click.ClickException, want_json: bool) -> int:
    if is_debugging() and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    status = error.exit_status if isinstance(error, CommandFailed) else ERROR
    if not want_json:
        error.show()
        return status
    if not isinstance(error, CommandFailed):
        error = CommandFailed(error.format_message(), hint="--help says what it takes")
    click.echo(output.json_text(error.document()), err=True)
    return status


def main() -> None:
    """Run the command line; ends the process with the contract's exit status."""
    # Closed by whoever started it: p-cli ... <&- >&-
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if len(sys.argv) > 1 or "_P_CLI_COMPLETE" in os.environ:
        sys.exit(run(sys.argv[1:]))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        run(["--help"])
        CommandFailed(
            "p-cli alone asks for commands, and there is no terminal to ask at",
            hint="name a command: p-cli cloud status",
        ).show()
        sys.exit(CONFIGURATION)
    from ploinky.cli.interactive import Shell  # not for every command: it takes its time

    Shell(cli, run).loop()
