"""What was typed in the interactive mode, kept for the next time; lines with a secret never are."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import FileHistory

from ploinky.telemetry.redaction import Redactor, secrets_among

_SECRET_OPTIONS = ("--secret", "--token", "--password")
_MASK = Redactor()


class CarefulHistory(FileHistory):
    """Remembers lines, unless something in them is nobody else's business.

    Only its owner may read the file.

    Args:
        path: Its directory is made where there is none.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        super().__init__(str(path))

    def append_string(self, string: str) -> None:
        """Remember a line, here and in the file, if it may be."""
        if not holds_secret(string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Add a line to the file; a full disk is no reason to end a session."""
        with suppress(OSError):
            super().store_string(string)


def history_path(home: Path, environment: Mapping[str, str]) -> Path:
    """Tell where the history lies: in the user's directory for what programs keep."""
    state = environment.get("XDG_STATE_HOME", "")
    place = Path(state) if Path(state).is_absolute() else home / ".local" / "state"
    return place / "ploinky" / "history"


def holds_secret(line: str) -> bool:
    """Tell whether a line has a key, token or password in it, or may have; in doubt it has."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if _MASK(line) != line or _is_login(words):
        return True
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in _SECRET_OPTIONS:
            return True
        if option == "--env":
            value = value if equals else " ".join(words[number + 1 : number + 2])
            name, _, text = value.partition("=")
            if secrets_among({name: text}):
                return True
        if equals and not option.startswith("-") and secrets_among({option: "x"}):
            return True
    return bool(re.search(r"\bp[bks]_", line))


def _is_login(words: Sequence[str]) -> bool:
    """Tell whether somebody logs in with a key on the line."""
    if "login" not in words:
        return False
    return any(word != "-" for word in words[words.index("login") + 1 :])
