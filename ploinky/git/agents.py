"""Which agents a commit holds, read from the mirror without a checkout.

A mirror's path and a commit enter, a list of `AgentListing` leaves: one for the root and
one for each directory that has a ``manifest.json``.  Whether a manifest makes
sense beyond being a JSON object is not this room's business.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from ploinky.deploy_errors import SourceTooLarge
from ploinky.git import problems
from ploinky.git.bounds import Bounds, Limits
from ploinky.git.problems import MirrorBroken
from ploinky.git.program import GitFailed, GitProgram
from ploinky.git.trees import Entry, entries
from ploinky.git.urls import Remote
from ploinky.source_values import AgentListing

_MANIFEST = "manifest.json"
_DEEPEST = 4
_MOST = 500
_LARGEST_BYTES = 64 * 1024
_LONGEST_ABOUT = 200


def list_agents(
    git: GitProgram, mirror: Path, remote: Remote, commit: str, limits: Limits, bounds: Bounds
) -> list[AgentListing]:
    """List agents by path, the first 500 down to four directories deep.

    Directories whose name begins with a dot, and ``node_modules``, are not searched.

    Raises:
        SourceTooLarge: The commit has too many files to search.
        MirrorBroken: An object is missing or damaged.
    """
    found: list[Entry] = []
    seen = 0

    def visit(entry: Entry) -> None:
        nonlocal seen
        seen += 1
        if seen > limits.entries:
            raise SourceTooLarge(f"{remote.url} has more than {limits.entries:,} files")
        if len(found) < _MOST and _is_manifest(entry):
            found.append(entry)

    try:
        entries(git, mirror, commit, bounds, visit)
        contents = _contents(git, mirror, found, bounds)
    except GitFailed as error:
        raise MirrorBroken(problems.words(error, None)) from error
    return [
        listing(
            entry.path.rpartition("/")[0], remote.name, contents.get(entry.object_id, _TOO_LARGE)
        )
        for entry in sorted(found, key=lambda entry: entry.path.rpartition("/")[0])
    ]


def _is_manifest(entry: Entry) -> bool:
    *directories, name = entry.path.split("/")
    if name != _MANIFEST or not entry.mode.startswith("100") or len(directories) > _DEEPEST:
        return False
    return not any(d.startswith(".") or d == "node_modules" for d in directories)


_TOO_LARGE = b"\0"


def _contents(
    git: GitProgram, mirror: Path, found: list[Entry], bounds: Bounds
) -> dict[str, bytes]:
    wanted = {entry.object_id for entry in found if entry.size <= _LARGEST_BYTES}
    if not wanted:
        return {}
    ids = "".join(f"{object_id}\n" for object_id in wanted).encode()
    output = git.run([f"--git-dir={mirror}", "cat-file", "--batch"], bounds, stdin=ids)
    contents = {}
    with io.BytesIO(output) as stream:
        while head := stream.readline().decode(errors="replace").strip():
            object_id, _, size = head.partition(" blob ")
            if not size:
                raise MirrorBroken(head)
            contents[object_id] = stream.read(int(size))
            stream.read(1)
    return contents


def listing(path: str, repository_name: str, raw_manifest: bytes) -> AgentListing:
    """Describe one agent by its manifest's text.

    Args:
        path: Its directory; ``""`` for the root, which goes by the repository's name.
    """
    name = path.rpartition("/")[2] or repository_name
    if raw_manifest == _TOO_LARGE:
        return AgentListing(name, path, problem=f"{_MANIFEST} is over {_LARGEST_BYTES:,} bytes")
    try:
        manifest = json.loads(raw_manifest.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return AgentListing(name, path, problem=f"{_MANIFEST} is not UTF-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return AgentListing(name, path, problem=f"{_MANIFEST} is not JSON: {error.msg} ({where})")
    except (RecursionError, ValueError):
        problem = f"{_MANIFEST} is nested too deeply or has a number too long"
        return AgentListing(name, path, problem=problem)
    if not isinstance(manifest, dict):
        return AgentListing(name, path, problem=f"{_MANIFEST} is not a JSON object")
    about = manifest.get("about", "")
    if not isinstance(about, str):
        return AgentListing(name, path, problem=f"{_MANIFEST}: about: expected a string")
    line = " ".join(about.split())
    return AgentListing(name, path, about=line[:_LONGEST_ABOUT])
