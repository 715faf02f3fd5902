"""From a ref to a commit, in a mirror that is there.

A mirror's path and a ref enter, a full commit id leaves.  No network.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from ploinky.deploy_errors import RefNotFound
from ploinky.git import problems
from ploinky.git.bounds import Bounds
from ploinky.git.mirrors import HEAD
from ploinky.git.problems import MirrorBroken
from ploinky.git.program import GitFailed, GitProgram
from ploinky.git.urls import Remote

_COMMIT_ID = re.compile(r"[0-9a-f]{4,64}\Z", re.IGNORECASE)
_MOST_SHOWN = 10


class NotInMirror(RefNotFound):
    """The mirror does not have it; the remote may, if it came since the last fetch."""


def find_commit(git: GitProgram, mirror: Path, remote: Remote, ref: str, bounds: Bounds) -> str:
    """Find what a branch, else a tag, else a full or abbreviated commit id stands for.

    Args:
        ref: ``""`` or `HEAD` for the remote's default branch; ``refs/heads/x`` and
            ``refs/tags/x`` say which is meant where a branch and a tag share a name.

    Raises:
        NotInMirror: There is nothing of this name; the message names what there is.
        RefNotFound: A tag that leads to no commit, an ambiguous commit id.
        MirrorBroken: Something that must be there is not.
    """
    if ref in ("", "HEAD"):
        return _default_commit(git, mirror, remote, bounds)
    whole = ref.startswith(("refs/heads/", "refs/tags/"))
    for name in [ref] if whole else [f"refs/heads/{ref}", f"refs/tags/{ref}"]:
        if _is_ref(git, mirror, name, bounds):
            return _peeled(git, mirror, remote, name, bounds)
    if _COMMIT_ID.match(ref):
        commit = _parsed(git, mirror, ref, bounds)
        if commit:
            return commit
    raise _not_found(git, mirror, remote, ref, bounds)


def _default_commit(git: GitProgram, mirror: Path, remote: Remote, bounds: Bounds) -> str:
    for name in (HEAD, "refs/heads/main", "refs/heads/master"):
        if _is_ref(git, mirror, name, bounds):
            return _peeled(git, mirror, remote, name, bounds)
    branches = _names(git, mirror, "refs/heads", bounds)
    if not branches:
        raise NotInMirror(f"{remote.url} has no commit yet: push one")
    raise NotInMirror(
        f"{remote.url} has no default branch: name one of {_listed(branches)}",
        details={"branches": branches[:_MOST_SHOWN]},
    )


def _is_ref(git: GitProgram, mirror: Path, name: str, bounds: Bounds) -> bool:
    try:
        git.run([f"--git-dir={mirror}", "show-ref", "--verify", "--quiet", "--", name], bounds)
    except GitFailed as error:
        if problems.is_broken(error):
            raise MirrorBroken(problems.words(error, None)) from error
        return False
    return True


def _parsed(git: GitProgram, mirror: Path, name: str, bounds: Bounds) -> str:
    arguments = ["rev-parse", "--verify", f"{name}^{{commit}}"]
    try:
        return git.run([f"--git-dir={mirror}", *arguments], bounds).decode().strip()
    except GitFailed as error:
        if "ambiguous" in error.said:
            raise RefNotFound(
                f"{name!r} is the beginning of several commit ids: give more of it"
            ) from error
        return ""


def _peeled(git: GitProgram, mirror: Path, remote: Remote, name: str, bounds: Bounds) -> str:
    commit = _parsed(git, mirror, name, bounds)
    if commit:
        return commit
    try:
        git.run([f"--git-dir={mirror}", "cat-file", "-e", f"{name}^{{}}"], bounds)
    except GitFailed as error:
        raise MirrorBroken(f"{name} leads to nothing that can be read") from error
    raise RefNotFound(f"{name!r} of {remote.url} leads to files, not to a commit")


def _names(git: GitProgram, mirror: Path, below: str, bounds: Bounds) -> list[str]:
    """Give the names of branches or tags, the last changed first."""
    arguments = [
        "for-each-ref",
        "--count=1000",
        "--sort=-creatordate",
        "--format=%(refname)",
        below,
    ]
    try:
        listed = git.run([f"--git-dir={mirror}", *arguments], bounds)
    except GitFailed as error:
        raise MirrorBroken(problems.words(error, None)) from error
    return [line.removeprefix(f"{below}/") for line in listed.decode(errors="replace").splitlines()]


def _not_found(
    git: GitProgram, mirror: Path, remote: Remote, ref: str, bounds: Bounds
) -> RefNotFound:
    branches = _names(git, mirror, "refs/heads", bounds)
    tags = _names(git, mirror, "refs/tags", bounds)
    near = difflib.get_close_matches(ref, [*branches, *tags], n=3)
    message = f"There is no branch, tag or commit {ref!r} in {remote.url}"
    if near:
        message += f"; did you mean {' or '.join(near)}?"
    else:
        message += "; its branches: " + (_listed(branches) or "none")
    return NotInMirror(
        message, details={"ref": ref, "near": near, "branches": branches[:_MOST_SHOWN]}
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
