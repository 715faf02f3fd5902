"""Every secret that the tests use, and the places where none of them may be.

What `requests` sends and hears in these tests is listened to: keys, sessions, secrets of webhooks
and agents, credentials of repositories.  At the end of each server's life its files, every error
that was heard, and all processes of this machine are searched for them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

KNOWN_PLACES = {
    "master.key": "the master key itself, 0600: what everything else is sealed with",
    "run/p/*/output.log": "what an agent of the process runtime printed itself",
    "logs/instances/*": "the same of instances that are gone; masked where it is read over the API",
    "run/leader.json": "the bootstrap token, for p-cli to print; void once the server is claimed",
}
"""Below the data directory: where a secret may be, and why."""

OWN_VARIABLE = b"\0PLOINKY_AGENT="
"""Who has this variable is an agent, whose secrets are its own: nobody else's environment has any."""

MASTER_KEY = "master key"

_SHORTEST = 8
_FEWEST = 5
"""Different characters: what tests make up, as eight zeros, is found anywhere."""
_TOKEN = re.compile(r"\bp[bhks]_[A-Za-z0-9_-]{43}")
_TELLING = ("apiKey", "authorizationToken", "secret", "token", "sshKey")


class Secrecy:
    """What was used, and what was heard of errors."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, str] = {}
        self._pattern: re.Pattern[bytes] | None = None
        self._errors: list[tuple[str, bytes]] = []

    # --- what there is to be kept

    def note(self, what: str, secret: str) -> None:
        """Keep in mind that this must be nowhere, in whatever form; short words are passed over."""
        if len(secret) >= _SHORTEST and len(set(secret)) >= _FEWEST:
            for form in _forms(secret):
                self._secrets.setdefault(form, what)
            self._pattern = None

    def hear(self, answer: requests.Response) -> None:
        """Listen to one exchange with a server."""
        sent = answer.request.body or b""
        self._note_all(sent if isinstance(sent, bytes) else str(sent).encode())
        for name in ("Authorization", "X-API-Key", "Cookie"):
            self.note_tokens(str(answer.request.headers.get(name, "")))
        if answer.status_code >= 400:
            self._errors.append((f"{answer.request.method} {answer.url}", answer.content))
        elif "/management/" in answer.url or answer.url.endswith("/auth"):
            self._note_all(answer.content)

    def heard(self, what: str, text: str) -> None:
        """Take down an error that came another way: what `p-cli` printed."""
        self._errors.append((what, text.encode()))

    def note_tokens(self, text: str) -> None:
        """Keep in mind every key and token in a text, as they say themselves what they are."""
        for token in _TOKEN.findall(text):
            self.note(token[:3], token)

    def _note_all(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except ValueError:
            return
        for what, secret in _secrets_of(document):
            for line in secret.splitlines():
                self.note(what, line)

    # --- where it may not be

    def leaks(self, data: Path) -> list[str]:
        """Say where a secret is that should not be there; of a server with this data directory."""
        return [*self.in_files(data), *self.in_errors(), *self.in_processes(_leader(data))]

    def in_files(self, data: Path) -> list[str]:
        """Say which files have one."""
        for name in ("master.key", "master.key.next"):
            if (data / name).exists():
                self.note(MASTER_KEY, (data / name).read_text().strip())
        found = []
        for parent, _, names in os.walk(data):  # which takes no harm from what goes meanwhile
            for path in (Path(parent, name) for name in names):
                place = str(path.relative_to(data))
                with suppress(FileNotFoundError):
                    if stat.S_ISREG(path.lstat().st_mode) and not _is_known(place):
                        secrets = self.in_bytes(path.read_bytes())
                        found += [f"{what} in {place}" for what in secrets]
        return sorted(found)

    def in_errors(self) -> list[str]:
        """Say which errors had one; each is looked at once."""
        errors, self._errors = self._errors, []
        return [f"{what} in {of}" for of, text in errors for what in self.in_bytes(text)]

    def in_processes(self, leader: int = 0) -> list[str]:
        """Say which processes have one in their arguments, or have another's in their variables.

        Args:
            leader: The pid of who may be given the master key as a variable.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                argv = (process / "cmdline").read_bytes()
                variables = b"\0" + (process / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is none of ours
            name = argv[:60].decode(errors="replace").replace("\0", " ")
            found += [f"{what} in arguments of {name}" for what in self.in_bytes(argv)]
            if OWN_VARIABLE not in variables:
                theirs = {MASTER_KEY} if process.name == str(leader) else set()
                others = [what for what in self.in_bytes(variables) if what not in theirs]
                found += [f"{what} in variables of {name}" for what in others]
        return found

    def in_bytes(self, data: bytes) -> list[str]:
        """Say what secrets are in this."""
        if not self._secrets:
            return []
        if self._pattern is None:
            self._pattern = re.compile(b"|".join(re.escape(form) for form in self._secrets))
        return sorted({self._secrets[form] for form in self._pattern.findall(data)})


def listening(secrecy: Secrecy) -> Any:
    """Give `requests.Session.send` that lets it hear of each exchange; streams are left alone."""
    send = requests.Session.send

    def heard(session: requests.Session, request: Any, **options: Any) -> requests.Response:
        answer = send(session, request, **options)
        if not options.get("stream"):
            secrecy.hear(answer)
        return answer

    return heard


def _secrets_of(document: Any) -> Iterator[tuple[str, str]]:
    """Find what is secret by its field's name, at any depth."""
    if isinstance(document, list):
        for each in document:
            yield from _secrets_of(each)
    if not isinstance(document, Mapping):
        return
    for name, value in document.items():
        if name in _TELLING and isinstance(value, str):
            yield name, value
        elif name == "secrets" and isinstance(value, Mapping):
            yield from ((f"variable {key}", str(secret)) for key, secret in value.items())
        elif name == "params" and document.get("command") == "login":
            yield from (("key tried", str(key)) for key in value)
        else:
            yield from _secrets_of(value)


def _forms(secret: str) -> set[bytes]:
    """Give a secret as it may be written: plain, in a URL, in JSON, and within base64."""
    plain = secret.encode()
    packed = {
        base64.b64encode(b"\0" * shift + plain)[(4 if shift else 0) : -4] for shift in range(3)
    }
    others = {plain, quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}
    return others | {form for form in packed if len(form) >= _SHORTEST}


def _leader(data: Path) -> int:
    try:
        return int(json.loads((data / "run" / "leader.json").read_text())["pid"])
    except FileNotFoundError:
        return 0


def _is_known(place: str) -> bool:
    return any(fnmatch(place, known) for known in KNOWN_PLACES)
