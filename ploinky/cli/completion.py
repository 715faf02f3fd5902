"""``p-cli completion``: what a shell needs in order to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes p-cli in SHELL.

    \b
    bash:  eval "$(p-cli completion bash)"        in ~/.bashrc
    zsh:   eval "$(p-cli completion zsh)"         in ~/.zshrc
    fish:  p-cli completion fish > ~/.config/fish/completions/p-cli.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows these three"
    click.echo(found(context.find_root().command, {}, "p-cli", "_P_CLI_COMPLETE").source())
