"""Where the server is and who we are: ``.ploinky/cloud.json``.

The file is looked for in this directory, then in each one above, then in the
user's home; one that belongs to somebody else is passed over, for it says where
our keys go.  ``PLOINKY_URL`` and ``PLOINKY_API_KEY`` win over it.  It holds a
session token, so it is 0600 and replaced whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import attrs
from attrs import field, frozen

from ploinky.cli.failures import CONFIGURATION, CommandFailed

FILE = Path(".ploinky") / "cloud.json"
DEFAULT_URL = "http://localhost:8000"


@frozen
class Connection:
    """One server and the credential for it.

    Attributes:
        token: Session token or API key; ``""`` for none.
        path: The file it came from or will be saved to.
    """

    url: str
    token: str = field(default="", repr=False)
    path: Path = FILE


def find(directory: Path, home: Path, environment: Mapping[str, str]) -> Connection:
    """Read the nearest connection file, overridden by the environment.

    Raises:
        CommandFailed: The file cannot be read or is not what `connect` writes.
    """
    nearest = _nearest(directory, home, _trusted(environment))
    path = nearest[0] if nearest else directory / FILE
    document = _document(*nearest) if nearest else {}
    kept = document.get("url", DEFAULT_URL).rstrip("/")
    url = (environment.get("PLOINKY_URL") or kept).rstrip("/")
    session = document.get("token", "") if url == kept else ""  # another server must not see it
    return Connection(url, environment.get("PLOINKY_API_KEY") or session, path)


def save(connection: Connection) -> None:
    """Write the file so that only its owner can read it.

    Raises:
        CommandFailed: The place is not writable.
    """
    path = connection.path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": connection.url, "token": connection.token}, file)
        fresh.replace(path)
    except OSError as error:
        raise CommandFailed(
            f"{path} cannot be written: {error.strerror}",
            hint="run p-cli in a directory of your own",
            exit_code=CONFIGURATION,
        ) from error


def without_token(connection: Connection) -> Connection:
    """Give the same server, with nobody logged in."""
    return attrs.evolve(connection, token="")


def _not_ours(path: Path, why: str) -> CommandFailed:
    return CommandFailed(
        f"{path} is not a connection file: {why}",
        hint=f"remove it (rm {path}) and connect again: p-cli cloud connect URL",
        exit_code=CONFIGURATION,
    )


def _trusted(environment: Mapping[str, str]) -> set[int]:
    """Give whose files may say where our keys go: ours, root's and, under sudo, the user's."""
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and environment.get("SUDO_UID", "").isdecimal():
        trusted.add(int(environment["SUDO_UID"]))
    return trusted


def _nearest(directory: Path, home: Path, trusted: set[int]) -> tuple[Path, str] | None:
    """Give the nearest file with its text.

    Raises:
        CommandFailed: It cannot be read.
    """
    for place in (directory, *directory.parents, home):
        path = place / FILE
        try:
            if not path.is_file() or path.stat().st_uid not in trusted:
                continue
        except OSError:  # somebody else's directory, above one of ours; or just gone
            continue
        try:
            with path.open(encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_uid in trusted:  # still, in a directory of another's
                    return path, file.read()
        except OSError as error:
            raise CommandFailed(
                f"{path} cannot be read: {error.strerror}",
                hint="see who it belongs to; p-cli reads and writes it as you",
                exit_code=CONFIGURATION,
            ) from error
        except UnicodeDecodeError as error:
            raise _not_ours(path, str(error)) from error
    return None


def _document(path: Path, text: str) -> dict[str, str]:
    try:
        document: dict[str, str] = json.loads(text)
        fields = (document["url"], document.get("token", ""))
        if not all(isinstance(field, str) for field in fields):
            raise ValueError("url and token are texts")
    except (TypeError, KeyError, AttributeError) as error:
        raise _not_ours(path, "expected an object with url and token") from error
    except ValueError as error:
        raise _not_ours(path, str(error)) from error
    return document
