"""``p-cli`` alone: a prompt that takes the same commands, until Ctrl-D.

Lines enter, exit statuses leave to the next prompt.  Nothing that a command does ends the session,
and nothing at the prompt waits for a server: names and who we are come when they come.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import takewhile
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem, ShellComplete
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    PathCompleter,
    ThreadedCompleter,
)
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History, InMemoryHistory

from ploinky.cli.connection import Connection
from ploinky.cli.failures import CONNECTION, CommandFailed
from ploinky.cli.history import CarefulHistory, history_path
from ploinky.cli.names import PATIENCE_SECONDS, Names, patient_client
from ploinky.cli.shared import connection, home

Run = Callable[..., int]
"""Runs a command: its words, and ``obj`` for its context; gives its exit status."""

_LEAVING = ("exit", "quit")
_HELP = """Commands are those of p-cli; the word `cloud` may be left out.
  help [COMMAND]  what there is, or what COMMAND takes
  Tab             completes commands, options and the server's own names
  Up, Ctrl-R      earlier lines; those with a secret are not kept
  '...'           quotes what has blanks, and may go on over several lines
  Ctrl-C          drops a line, or ends the command that runs
  Ctrl-D, exit    leave
"""


class Shell:
    """One session at a terminal.

    Args:
        cli: The tree of commands.
        run: See `Run`.
    """

    def __init__(self, cli: click.Group, run: Run) -> None:
        self._cli = cli
        self._run = run
        self._names = Names()
        self._status = 0
        completer = ThreadedCompleter(CommandCompleter(cli, self._names))
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            completer=completer,
            complete_while_typing=False,
            history=_history(),
            multiline=Condition(lambda: goes_on(self._session.default_buffer.text)),
            prompt_continuation="... ",
        )
        self._standing = Standing(self._session.app.invalidate)

    def loop(self) -> None:
        """Ask and run until somebody leaves."""
        click.echo(f"p-cli {version('ploinky')}: help says what there is, Ctrl-D leaves.")
        while True:
            self._standing.look()
            try:
                typed = self._session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            for words in commands(typed):
                if words[0] in _LEAVING:
                    return
                self._take(words)

    def _take(self, words: list[str]) -> None:
        if words == ["help"]:
            click.echo(_HELP)
        self._status = self._run(as_arguments(words, self._cli), obj=self._names)

    def _prompt(self) -> StyleAndTextTuples:
        failed: StyleAndTextTuples = [("ansired", f"[{self._status}] ")] if self._status else []
        return [*failed, ("bold", self._standing.words()), ("", "> ")]


def as_arguments(words: list[str], cli: click.Group) -> list[str]:
    """Give the words of a line as p-cli's own arguments, with what may be left out."""
    if words[0] == "p-cli":
        words = words[1:]
    if words and words[0] == "help":
        return [*as_arguments(words[1:], cli), "--help"] if words[1:] else ["cloud", "--help"]
    if words and (words[0] in cli.commands or words[0] in ("-h", "--help", "--version")):
        return words
    return ["cloud", *words]


def commands(typed: str) -> Iterator[list[str]]:
    """Give the words of each command: one a line, unless a quote is open or a backslash ends it.

    As in a shell, from a word ``#`` on it is a comment: what is pasted from a manual works.
    """
    for text in _texts(typed):
        words = [] if goes_on(text) else list(takewhile(lambda word: word != "#", _words(text)))
        if words and not words[0].startswith("#"):
            yield words


def _texts(typed: str) -> list[str]:
    """Cut what was typed to commands, the last one as far as it has come."""
    texts: list[str] = []
    for line in typed.split("\n"):
        if texts and goes_on(texts[-1]):
            texts[-1] += f"\n{line}"
        else:
            texts.append(line)
    return texts


def goes_on(text: str) -> bool:
    """Tell whether a command is not over yet: a quote is open, or a backslash ends it."""
    try:
        _words(text)
    except ValueError:
        return True
    return False


def _words(text: str) -> list[str]:
    return shlex.split(text.replace("\\\n", " "))


class CommandCompleter(Completer):
    """Completes as the shells do, from the same tree of commands."""

    def __init__(self, cli: click.Group, names: Names) -> None:
        self._cli = cli
        self._complete = ShellComplete(cli, {"obj": names}, "p-cli", "_P_CLI_COMPLETE")
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Give what may stand at the cursor; what is in quotes is its writer's own."""
        text = _texts(document.text_before_cursor)[-1]
        incomplete = "" if not text or text[-1].isspace() else text.split()[-1]
        before = text[: len(text) - len(incomplete)]
        if goes_on(text) or goes_on(before):
            return
        for item in self._items(_words(before), incomplete):
            if item.type in ("file", "dir"):
                yield from self._paths.get_completions(Document(incomplete), complete_event)
            else:
                value = str(item.value)
                about = (item.help or "").split(".")[0]
                yield Completion(value, -len(incomplete), display_meta=about)

    def _items(self, words: list[str], incomplete: str) -> list[CompletionItem]:
        asks = words[:1] == ["help"]
        words = words[1:] if asks else words
        arguments = as_arguments(words, self._cli) if words else ["cloud"]
        found = self._complete.get_completions(arguments, incomplete)
        if not words:
            own = [CompletionItem(word) for word in ("help", *_LEAVING)]
            root = self._complete.get_completions([], incomplete)
            found += root + [item for item in own if item.value.startswith(incomplete)]
        return found


class Standing:
    """Which server is in use and who we are to it, for the prompt; it is asked in the background.

    Args:
        changed: Called, by another thread, when there are other words.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: tuple[Connection, str] | None = None
        self._looking: threading.Thread | None = None

    def words(self) -> str:
        """Give what is known now."""
        try:
            here = connection()
        except CommandFailed:
            return "no connection"
        if self._known is None or self._known[0] != here:
            return _server(here)
        return self._known[1]

    def look(self) -> None:
        """Ask anew, unless that is being done."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()

    def _look(self) -> None:
        try:
            client = patient_client()
        except CommandFailed:
            return
        words = _server(client.connection)
        try:
            found = client.api("GET", "check-auth", timeout=PATIENCE_SECONDS)
            words = f"{found['userId'] if found['authenticated'] else 'nobody'}@{words}"
        except CommandFailed as error:
            words += " (away)" if error.exit_status == CONNECTION else ""
        except KeyError:
            words += " (no Ploinky server)"
        self._known = (client.connection, words)
        self._changed()


def _server(here: Connection) -> str:
    return urlsplit(here.url).netloc or here.url


def _history() -> History:
    path = history_path(home(), os.environ)
    try:
        return CarefulHistory(path)
    except OSError as error:
        click.echo(f"No history is kept: {path}: {error.strerror}", err=True)
        return InMemoryHistory()
