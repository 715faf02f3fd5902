"""Git's words to ours: what a failed run of git means for whoever asked.

`GitFailed` and its siblings enter, a `ploinky.deploy_errors.SourceError` with a cause
and a next step leaves, or None where git's words do not say that the remote is
at fault.  Nothing leaves that a credential could be read from.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from ploinky.deploy_errors import RepositoryUnreachable, SourceError, UrlRefused
from ploinky.git.bounds import Limits, OutOfTime
from ploinky.git.program import GitFailed, GitMissing
from ploinky.git.urls import Remote
from ploinky.source_values import GitCredential

_REGISTER = "p-cli cloud repo add <name> <url>"
_SHORTEST_SECRET = 16
_NOISE = re.compile(
    r"(?:hint:|warning: redirecting|from |please make sure|and the repository exists|"
    r"cloning into|fatal: could not read from remote repository\.?\Z|\Z)",
    re.IGNORECASE,
)

_BROKEN = re.compile(
    r"corrupt|bad object|bad ref|bad tree|bad config|missing (?:blob|tree|commit|object|necessary)|"
    r"unable to read|inflate|invalid (?:object|sha1|tree)|not a git repository|pack has|"
    r"packfile|not a valid object|not a tree object|could not read|is empty|is not a valid",
    re.IGNORECASE,
)
_LOCAL = re.compile(
    r"no space left on device|disk quota exceeded|too many open files|file name too long|"
    r"read-only file system|cannot allocate memory|out of memory",
    re.IGNORECASE,
)


class MirrorBroken(Exception):
    """The mirror lacks something that it must have: cloning it again may help."""


def scrubbed(text: str, credential: GitCredential | None) -> str:
    """Take out of git's words whatever the credential, or a terminal, could be read from."""
    if credential:
        secrets = [credential.token, *credential.ssh_key.splitlines()]
        # A short user name is no secret, and may be a word of the message.
        if len(credential.username) >= _SHORTEST_SECRET:
            secrets.append(credential.username)
        for secret in {s for raw in secrets for s in (raw.strip(), quote(raw.strip(), safe=""))}:
            if secret:
                text = text.replace(secret, "***")
    text = re.sub(r"://[^/@\s]*:[^/@\s]*@", "://***@", text)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def words(failed: GitFailed, credential: GitCredential | None) -> str:
    """Give the line of git's that says why, scrubbed."""
    lines = [line.strip() for line in scrubbed(failed.said, credential).splitlines()]
    telling = [line for line in lines if not _NOISE.match(line)]
    fatal = [line for line in telling if line.startswith(("fatal:", "error:", "ssh:"))]
    said = (fatal or telling or [f"git {failed.command} exited with {failed.exit_code}"])[-1]
    return said[:500]


def is_broken(failed: GitFailed) -> bool:
    """Tell whether a mirror's own damage, not the machine's state, made git fail."""
    return bool(_BROKEN.search(failed.said)) and not _LOCAL.search(failed.said)


def of_remote(
    error: GitFailed | GitMissing | OutOfTime,
    remote: Remote,
    credential: GitCredential | None,
    limits: Limits,
) -> SourceError | None:
    """Say why the remote did not give what was asked for.

    Returns:
        None where git failed for a reason that is not known to be the remote's.
    """
    if isinstance(error, GitMissing):
        return RepositoryUnreachable("git does not start on this machine: install it")
    if isinstance(error, OutOfTime):
        return RepositoryUnreachable(
            f"{remote.url} was not fetched within {limits.seconds:g} seconds, the time limit"
        )
    said = error.said.lower()
    detail = {"git": words(error, credential)}
    if re.search(r"transport '.*' not allowed|protocol .* (?:not supported|disabled)", said):
        return UrlRefused(f"{remote.url} leads to another kind of URL", details=detail)
    for pattern, cause in _CAUSES:
        if pattern.search(said):
            given = credential or GitCredential()
            what = cause(remote, bool(given.token), bool(given.ssh_key))
            return RepositoryUnreachable(f"{remote.url}: {what} ({detail['git']})", details=detail)
    return None


def explained(
    error: GitFailed | GitMissing | OutOfTime,
    remote: Remote,
    credential: GitCredential | None,
    limits: Limits,
) -> SourceError:
    """Say why the remote did not give what was asked for, in git's words where ours end."""
    fault = of_remote(error, remote, credential, limits)
    if fault:
        return fault
    said = words(error, credential) if isinstance(error, GitFailed) else str(error)
    return RepositoryUnreachable(f"{remote.url}: {said}", details={"git": said})


def _private(remote: Remote, token: bool, key: bool) -> str:
    if token:
        return (
            "the token it was given was refused: it may have expired, or may not read this "
            f"repository; give it a new token with {_REGISTER} --token-file FILE"
        )
    return (
        "it is private, or does not exist: check the URL, or give it a token "
        f"with {_REGISTER} --token-file FILE"
    )


def _key_refused(remote: Remote, token: bool, key: bool) -> str:
    if key:
        return "the SSH key it was given was refused: add its public half there as a deploy key"
    return f"it wants an SSH key: give it one with {_REGISTER} --ssh-key FILE"


def _said(sentence: str):  # type: ignore[no-untyped-def]
    return lambda remote, token, key: sentence


_CAUSES = [
    (re.compile(pattern), cause)
    for pattern, cause in (
        (
            r"ssh: (?:command )?not found",
            _said("ssh is not installed on this machine: install OpenSSH's client, or use https"),
        ),
        (
            r"load key|passphrase|invalid format|error in libcrypto",
            _said(
                "the SSH key it was given cannot be used: it must be a private key in "
                "OpenSSH's format, without a passphrase"
            ),
        ),
        (
            r"host key verification failed|host identification has changed",
            _said(
                "the host's SSH key is not the one that is known: compare its fingerprint, and if "
                f"it was replaced on purpose, say so with {_REGISTER} --known-hosts FILE"
            ),
        ),
        (r"permission denied \(|too many authentication failures", _key_refused),
        (
            r"could not read (?:username|password)|authentication failed|terminal prompts"
            r"|returned error: 40[13]",
            _private,
        ),
        (
            r"could not resolve (?:host|proxy)|name or service not known",
            lambda remote, token, key: f"the name {remote.site} cannot be resolved: check it",
        ),
        (
            r"certificate|ssl_connect|tls|gnutls",
            _said("no secure connection: its certificate is not trusted here"),
        ),
        (
            r"connection refused|failed to connect|couldn't connect|no route to host|unreachable"
            r"|timed out|too slow|connection reset|kex_exchange|connection closed",
            _said("no connection: check that the host is up and reached from here"),
        ),
        (
            r"not found|does not appear to be a git repository|does not exist|returned error: 4"
            r"|not valid: is this a git repository",
            _said("there is no such Git repository: check the URL"),
        ),
        (
            r"returned error: 5|hung up|early eof|rpc failed|unexpected disconnect",
            _said("the host broke off: try again"),
        ),
        (
            r"corruption on the remote side|remote: fatal",
            _said("the repository is damaged at its host: run git fsck there"),
        ),
        (r"cannot run ssh|remote helper for", _said("this machine's git cannot speak it")),
    )
]
