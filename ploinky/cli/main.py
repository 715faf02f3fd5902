"""``p-cli``: the tree of commands, and the one place where a failure ends the program."""

from __future__ import annotations

import os
import sys

import click

from ploinky.cli import (
    agents,
    backup,
    calls,
    completion,
    deployments,
    hosts,
    keys,
    logs,
    metrics,
    repositories,
    rollouts,
    server,
    session,
    settings,
)
from ploinky.cli.failures import ERROR, CommandFailed


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
    *keys.COMMANDS,
    *settings.COMMANDS,
    *backup.COMMANDS,
    metrics.metrics,
    logs.logs,
    calls.call,
):
    cloud.add_command(command)
cli.add_command(calls.client)


cli.add_command(completion.completion)


def main() -> None:
    """Run the command line; ends the process with the contract's exit status."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.UsageError as error:
        error.show()
        sys.exit(ERROR)
    except CommandFailed as error:
        error.show()
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(ERROR)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ERROR)
    except Exception as error:
        if os.environ.get("DEBUG") == "1":
            raise
        CommandFailed(
            f"{type(error).__name__}: {error}",
            hint="this is a bug in p-cli; DEBUG=1 shows where",
        ).show()
        sys.exit(ERROR)
