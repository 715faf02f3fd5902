"""What a commit's tree holds, read as a stream so that no tree is too large to refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from ploinky.git.bounds import Bounds
from ploinky.git.program import GitProgram


@frozen
class Entry:
    """One file, link or submodule.

    Attributes:
        size: Bytes of content; 0 for a submodule.
        path: From the tree's root.
    """

    mode: str
    object_id: str
    size: int
    path: str


def entries(
    git: GitProgram, mirror: Path, tree: str, bounds: Bounds, visit: Callable[[Entry], None]
) -> None:
    """Show every entry, depth first; what ``visit`` raises ends the walk.

    Args:
        tree: Id of a tree or commit.

    Raises:
        GitFailed: The tree cannot be read.
    """
    rest = b""

    def take(data: bytes) -> None:
        nonlocal rest
        *records, rest = (rest + data).split(b"\0")
        for record in records:
            head, _, path = record.partition(b"\t")
            mode, _, object_id, size = head.decode().split()
            visit(
                Entry(
                    mode,
                    object_id,
                    int(size) if size.isdigit() else 0,
                    path.decode(errors="replace"),
                )
            )

    git.run(
        [f"--git-dir={mirror}", "ls-tree", "-r", "-l", "-z", "--full-tree", tree], bounds, take=take
    )
