"""Git without a network: a source in memory, and real repositories in a directory.

`FakeSource` provides `ISource`; `LocalOrigin` makes repositories that the real
one can be pointed at.  Both take commits the same way.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from hashlib import sha1
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen
from zope.interface import implementer

from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable
from ploinky.git.agents import listing
from ploinky.leader_interfaces import ISource
from ploinky.source_values import AgentListing, GitSource


@frozen
class File:
    """One file of a commit.

    Attributes:
        content: Of a link: what it points to; of a submodule: a commit id.
        mode: As Git writes it: ``100644``, ``100755``, ``120000`` (link), ``160000`` (submodule).
    """

    content: bytes = b""
    mode: str = "100644"


Files = Mapping[str, "File | bytes | str"]
"""All files of a commit, by path."""


def _file(value: File | bytes | str) -> File:
    if isinstance(value, File):
        return value
    return File(value.encode() if isinstance(value, str) else value)


class Origin(Protocol):
    """A repository that takes commits."""

    url: str

    def commit(self, files: Files, branch: str = "main", tag: str = "") -> str:
        """Add a commit with exactly these files to a branch, tagged if asked; give its id."""


class LocalOrigin:
    """A real bare repository, made with the machine's git.

    Args:
        directory: Where it is made; must not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"file://{directory}"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(directory))

    def git(self, *arguments: str, stdin: bytes = b"", index: str = "index") -> str:
        """Run git in it and give its output."""
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "test"), ("EMAIL", "test@example.invalid"))
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.directory if self.directory.exists() else None,
            env={
                **who,
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_INDEX_FILE": index,
            },
            input=stdin,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def commit(self, files: Files, branch: str = "main", tag: str = "") -> str:
        """See `Origin`."""
        lines = []
        for path, file in ((path, _file(value)) for path, value in files.items()):
            object_id = file.content.decode() if file.mode == "160000" else self.blob(file.content)
            lines.append(f"{file.mode} {object_id}\t{path}\n")
        self.git("read-tree", "--empty")
        self.git("update-index", "--index-info", stdin="".join(lines).encode())
        return self.commit_tree(self.git("write-tree"), branch, tag)

    def blob(self, content: bytes) -> str:
        """Store a file's content and give its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def commit_tree(self, tree: str, branch: str = "main", tag: str = "") -> str:
        """Add a commit of any tree, well-formed or not."""
        parents = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        parent = ["-p", parents] if parents else []
        number = self.git("rev-list", "--count", "--all")
        commit = self.git("commit-tree", *parent, "-m", f"commit {number}", tree)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        if tag:
            self.git("tag", "--annotate", "--message", tag, tag, commit)
        return commit


@define
class FakeOrigin:
    """What a `FakeSource` finds at one URL."""

    url: str
    branches: dict[str, str] = field(factory=dict)
    tags: dict[str, str] = field(factory=dict)
    commits: dict[str, dict[str, File]] = field(factory=dict)

    def commit(self, files: Files, branch: str = "main", tag: str = "") -> str:
        """See `Origin`."""
        content = {path: _file(value) for path, value in files.items()}
        seed = f"{self.url} {len(self.commits)} {sorted(content)}"
        commit = sha1(seed.encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = content
        self.branches[branch] = commit
        if tag:
            self.tags[tag] = commit
        return commit


@implementer(ISource)
class FakeSource:
    """`ISource` over origins in memory.

    Attributes:
        origins: By URL.  A URL that is not here is unreachable.
        fetches: The URLs of `resolve` calls, oldest first, with their ``fresh``.
    """

    def __init__(self) -> None:
        self.origins: dict[str, FakeOrigin] = {}
        self.fetches: list[tuple[str, bool]] = []

    def origin(self, url: str) -> FakeOrigin:
        """Make an empty repository at a URL."""
        self.origins[url] = FakeOrigin(url)
        return self.origins[url]

    async def resolve(self, source: GitSource, fresh: bool) -> str:
        """See `ISource`."""
        self.fetches.append((source.url, fresh))
        origin = self._reached(source.url)
        ref = source.ref or "main"
        by_id = [id for id in origin.commits if len(ref) >= 4 and id.startswith(ref)]
        commit = origin.branches.get(ref) or origin.tags.get(ref) or (by_id[0] if by_id else "")
        if not commit:
            raise RefNotFound(
                f"There is no branch, tag or commit {ref!r} in {source.url}; its branches: "
                + ", ".join(origin.branches),
                details={"ref": ref, "branches": list(origin.branches)},
            )
        return commit

    async def checkout(
        self, source: GitSource, commit: str, sub_path: str, destination: str
    ) -> None:
        """See `ISource`."""
        if os.path.lexists(destination):
            raise FileExistsError(destination)
        files = self._reached(source.url).commits[commit]
        prefix = f"{sub_path}/" if sub_path else ""
        below = {path: file for path, file in files.items() if path.startswith(prefix)}
        if prefix and not below:
            raise RefNotFound(f"{source.url} has no directory {sub_path!r} at {commit[:12]}")
        Path(destination).mkdir(parents=True)
        for path, file in below.items():
            written = Path(destination, path.removeprefix(prefix))
            written.parent.mkdir(parents=True, exist_ok=True)
            if file.mode == "120000":
                written.symlink_to(file.content.decode())
            else:
                written.write_bytes(file.content)
                written.chmod(0o755 if file.mode == "100755" else 0o644)

    async def agents(self, source: GitSource) -> list[AgentListing]:
        """See `ISource`."""
        origin = self._reached(source.url)
        name = source.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
        files = origin.commits[await self.resolve(source, False)]
        found = {
            path.rpartition("/")[0]: file.content
            for path, file in files.items()
            if path.rpartition("/")[2] == "manifest.json"
        }
        return [listing(path, name, found[path]) for path in sorted(found)]

    async def forget(self, url: str) -> None:
        """See `ISource`."""

    def _reached(self, url: str) -> FakeOrigin:
        if url not in self.origins:
            raise RepositoryUnreachable(f"{url}: there is no such Git repository")
        return self.origins[url]
