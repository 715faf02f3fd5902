"""From a commit to a directory of plain files.

A mirror's path, a commit and a sub-directory enter; a new directory leaves,
with the files as `git clone` would write them and nothing of Git.  Submodules
stay empty, large-file pointers stay pointers.  Symbolic links may lead
anywhere inside; one that leads out is refused, as the server itself would
follow it (for static files, for the process runtime) and most such links
point at a sibling directory that is not deployed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attrs import frozen

from ploinky.errors import RefNotFound, SourceError, SourceTooLarge
from ploinky.git import problems
from ploinky.git.problems import MirrorBroken
from ploinky.git.program import Bounds, GitFailed, GitProgram, Limits
from ploinky.git.trees import Entry, entries
from ploinky.git.urls import Remote, shown


@frozen
class Checkout:
    """One commit's sub-directory, to be written.

    Attributes:
        mirror: Where its objects are.
        remote: For messages.
        commit: Full id.
        sub_path: `""` for all of it.
    """

    mirror: Path
    remote: Remote
    commit: str
    sub_path: str

    def write(self, git: GitProgram, part: Path, limits: Limits, bounds: Bounds) -> None:
        """Write the files to `part`, which may hold what an earlier attempt left.

        Whoever calls removes `part` on failure, and renames it on success.

        Raises:
            RefNotFound: There is no such sub-directory.
            SourceTooLarge: Too many files, or too large.
            SourceError: A link leads out, or a file cannot be written.
            MirrorBroken: An object is missing or damaged.
        """
        index = part.with_name(f"{part.name}.index")
        shutil.rmtree(part, ignore_errors=True)
        try:
            tree = self._tree(git, bounds)
            self._measure(git, tree, limits, bounds)
            part.mkdir(parents=True)
            environment = {"GIT_INDEX_FILE": str(index)}
            place = [f"--git-dir={self.mirror}", f"--work-tree={part}"]
            git.run([*place, "read-tree", tree], bounds, environment=environment)
            git.run([*place, "checkout-index", "--all", "--quiet"], bounds, environment=environment)
            self._refuse_links_out(part, bounds)
        except GitFailed as error:
            said = problems.words(error, None)
            if problems.is_broken(error):
                raise MirrorBroken(said) from error
            raise SourceError(
                f"{self.remote.url} at {self.commit[:12]} cannot be checked out: {said}"
            ) from error
        finally:
            for leftover in (index, index.with_name(f"{index.name}.lock")):
                leftover.unlink(missing_ok=True)

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

    def _refuse_links_out(self, part: Path, bounds: Bounds) -> None:
        root = os.path.realpath(part)
        for parent, directories, files in os.walk(part):
            bounds.check()
            for name in (*directories, *files):
                path = os.path.join(parent, name)
                if not os.path.islink(path):
                    continue
                # The part's own name is not known to anyone who could lead back into it.
                if os.path.commonpath([os.path.realpath(path), root]) != root:
                    raise SourceError(
                        f"{os.path.relpath(path, part)} in {self.remote.url} is a symbolic link "
                        f"to {os.readlink(path)}, out of what is deployed: replace it by a copy, "
                        "or deploy the directory that holds both"
                    )


def _normal(sub_path: str) -> str:
    segments = sub_path.strip("/")
    if not segments:
        return ""
    if not segments.isprintable() or any(s in ("", ".", "..") for s in segments.split("/")):
        raise RefNotFound(f"{shown(sub_path)} is not a directory's path in a repository")
    return segments
