"""A token or SSH key, lent to one run of git and taken back.

A `GitCredential` enters; an `Access` leaves that is good while its context is
open.  The token is never on disk, in an argument or in a variable: git's
credential helper reads it from an anonymous file that git inherits, and is
asked for this scheme, host and port only, so that a redirect elsewhere gets
nothing.  ssh(1) takes keys from files alone: a private one, removed after use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from ploinky.deploy_errors import RepositoryUnreachable
from ploinky.git.program import Access
from ploinky.git.urls import ALLOWED, Remote
from ploinky.source_values import GitCredential


class Credentials:
    """Lends credentials.

    Args:
        directory: Private to this room; keys live below it while they are used,
            and the host keys that were trusted at first sight for good.
    """

    def __init__(self, directory: Path) -> None:
        self._keys = directory / "keys"
        self._known_hosts = directory / "known_hosts"

    def prepare(self) -> None:
        """Remove what a server that was killed left behind.  Before the first `lend`."""
        shutil.rmtree(self._keys, ignore_errors=True)
        self._keys.mkdir(mode=0o700)

    @contextmanager
    def lend(self, credential: GitCredential | None, remote: Remote) -> Iterator[Access]:
        """Make a credential usable for one remote while the context is open.

        Raises:
            RepositoryUnreachable: The credential cannot be used with git.
        """
        if remote.scheme == "ssh":
            with self._ssh(credential or GitCredential()) as environment:
                yield Access(environment=_allowing(remote, environment))
        elif remote.scheme != "file" and credential and credential.token:
            with _token(credential) as descriptor:
                yield Access(
                    options=("-c", _helper(remote, descriptor)),
                    environment=_allowing(remote),
                    descriptors=(descriptor,),
                )
        else:
            yield Access(environment=_allowing(remote))

    @contextmanager
    def _ssh(self, credential: GitCredential) -> Iterator[dict[str, str]]:
        with tempfile.TemporaryDirectory(dir=self._keys) as name:
            directory = Path(name)
            known_hosts, strictness = self._known_hosts, "accept-new"
            if credential.known_hosts:
                known_hosts, strictness = directory / "known_hosts", "yes"
                _write_private(known_hosts, credential.known_hosts)
            key = directory / "key"
            if credential.ssh_key:
                _write_private(key, credential.ssh_key)
            options = {
                "BatchMode": "yes",
                "IdentitiesOnly": "yes",
                "IdentityAgent": "none",
                "IdentityFile": _in_option(key) if credential.ssh_key else "none",
                "StrictHostKeyChecking": strictness,
                "UserKnownHostsFile": _in_option(known_hosts),
                "GlobalKnownHostsFile": "/dev/null",
                "PasswordAuthentication": "no",
                "ClearAllForwardings": "yes",
                "ConnectTimeout": "20",
                "ServerAliveInterval": "15",
                "ServerAliveCountMax": "4",
            }
            settings = " ".join(quote(f"-o{name}={value}") for name, value in options.items())
            # No configuration file, the server's identity and agent least of all:
            # a repository is opened by its own key or not at all.
            yield {"GIT_SSH_COMMAND": f"ssh -F none {settings}", "GIT_SSH_VARIANT": "ssh"}


def _allowing(remote: Remote, more: dict[str, str] | None = None) -> dict[str, str]:
    return {"GIT_ALLOW_PROTOCOL": ALLOWED[remote.scheme], **(more or {})}


def _helper(remote: Remote, descriptor: int) -> str:
    # Opened by its path the file is read from its start each time it is asked for.
    script = f'!f() {{ test "$1" = get && cat /proc/self/fd/{descriptor}; }}; f'
    return f"credential.{remote.scheme}://{remote.site}.helper={script}"


@contextmanager
def _token(credential: GitCredential) -> Iterator[int]:
    """Write a credential into an anonymous file in the form in which helpers answer.

    Source: git-credential(1), INPUT/OUTPUT FORMAT.
    """
    username, token = credential.username.strip() or "git", credential.token.strip()
    if not (username + token).isprintable():
        raise RepositoryUnreachable("The token or user name has a line break or control character")
    descriptor = os.memfd_create("credential")
    try:
        os.write(descriptor, f"username={username}\npassword={token}\n".encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _in_option(path: Path) -> str:
    """Quote a path for ssh(1)'s own reader of options, which expands ``%`` and splits at spaces."""
    return '"{}"'.format(str(path).replace("%", "%%"))


def _write_private(path: Path, text: str) -> None:
    # OpenSSH refuses keys with carriage returns or without a final line feed.
    lines = text.strip().replace("\r\n", "\n") + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(lines)
