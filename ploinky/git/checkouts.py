"""From a commit to a directory of plain files.

A mirror's path, a commit and a sub-directory enter; a new directory leaves,
with the files as ``git clone`` would write them and nothing of Git.  Submodules
stay empty, large-file pointers stay pointers.  Symbolic links may lead
anywhere inside; one that leads out is refused, as the server itself would
follow it (for static files, for the process runtime) and most such links
point at a sibling directory that is not deployed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from attrs import frozen

from ploinky.deploy_errors import RefNotFound, SourceError, SourceTooLarge
from ploinky.git import problems
from ploinky.git.bounds import Bounds, Limits
from ploinky.git.problems import MirrorBroken
from ploinky.git.program import GitFailed, GitProgram
from ploinky.git.trees import Entry, entries
from ploinky.git.urls import Remote, is_below, shown

FILES = "files"
"""The part of a part that becomes the checkout."""


@frozen
class Checkout:
    """One commit's sub-directory, to be written.

    Attributes:
        mirror: Where its objects are.
        remote: For messages.
        commit: Full id.
        sub_path: ``""`` for all of it.
    """

    mirror: Path
    remote: Remote
    commit: str
    sub_path: str

    def write(self, git: GitProgram, part: Path, limits: Limits, bounds: Bounds) -> None:
        """Write the files to ``part/files``.

        Whoever calls made ``part``, an empty directory, and removes it.

        Raises:
            RefNotFound: There is no such sub-directory.
            SourceTooLarge: Too many files, or too large.
            SourceError: A link leads out, or a file cannot be written.
            MirrorBroken: An object is missing or damaged.
        """
        files = part / FILES
        shutil.rmtree(files, ignore_errors=True)
        try:
            tree = self._tree(git, bounds)
            self._measure(git, tree, limits, bounds)
            files.mkdir()
            environment = {"GIT_INDEX_FILE": str(part / "index")}
            place = [f"--git-dir={self.mirror}", f"--work-tree={files}"]
            git.run([*place, "read-tree", tree], bounds, environment=environment)
            git.run([*place, "checkout-index", "--all", "--quiet"], bounds, environment=environment)
        except GitFailed as error:
            said = problems.words(error, None)
            if problems.is_broken(error):
                raise MirrorBroken(said) from error
            raise SourceError(
                f"{self.remote.url} at {self.commit[:12]} cannot be checked out: {said}"
            ) from error
        self._refuse_links_out(files, bounds)

    def _tree(self, git: GitProgram, bounds: Bounds) -> str:
        wanted = _normal(self.sub_path)
        if not wanted:
            return f"{self.commit}^{{tree}}"
        place = f"--git-dir={self.mirror}"
        found = git.run([place, "ls-tree", "-z", self.commit, "--", wanted], bounds)
        mode, _, rest = found.decode(errors="replace").partition(" ")
        if mode == "040000":
            return rest.split()[1]
        top = git.run([place, "ls-tree", "-d", "-z", "--name-only", self.commit], bounds)
        there = [name for name in top.decode(errors="replace").split("\0") if name]
        raise RefNotFound(
            f"{self.remote.url} has no directory {wanted!r} at {self.commit[:12]}; "
            f"its directories: {', '.join(there[:10]) or 'none'}",
            details={"subPath": wanted, "directories": there[:10]},
        )

    def _measure(self, git: GitProgram, tree: str, limits: Limits, bounds: Bounds) -> None:
        total = count = 0

        def add(entry: Entry) -> None:
            nonlocal total, count
            total += entry.size
            count += 1
            if total > limits.checkout_bytes or count > limits.entries:
                raise SourceTooLarge(
                    f"{self.remote.url} at {self.commit[:12]} is over the limit of "
                    f"{limits.checkout_bytes:,} bytes or {limits.entries:,} files: "
                    "deploy a smaller sub-directory",
                    details={"limitBytes": limits.checkout_bytes, "limitFiles": limits.entries},
                )

        entries(git, self.mirror, tree, bounds, add)

    def _refuse_links_out(self, files: Path, bounds: Bounds) -> None:
        root = os.path.realpath(files)
        for parent, directories, names in os.walk(files):
            bounds.check()
            for name in (*directories, *names):
                path = os.path.join(parent, name)
                if os.path.islink(path) and not is_below(os.path.realpath(path), root):
                    raise SourceError(
                        f"{os.path.relpath(path, files)} in {self.remote.url} is a symbolic link "
                        f"to {shown(os.readlink(path))}, out of what is deployed: replace it by a "
                        "copy, or deploy the directory that holds both"
                    )


def new_part(target: Path) -> Path:
    """Make the directory, beside ``target``, in which a checkout grows.

    Its name is new each time, as a git that outlived a killed server may still write to an
    older one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))


def remove_parts(target: Path) -> None:
    """Remove the directories of `new_part`, also those that a killed server left."""
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if path.name.startswith(f".{target.name}.part-"):
            shutil.rmtree(path, ignore_errors=True)


def _normal(sub_path: str) -> str:
    segments = sub_path.strip("/")
    if not segments:
        return ""
    if not segments.isprintable() or any(s in ("", ".", "..") for s in segments.split("/")):
        raise RefNotFound(f"{shown(sub_path)} is not a directory's path in a repository")
    return segments
