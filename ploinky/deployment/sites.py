"""Whether the files of a static release can be served: the proof of health that a deploy asks for.

Where its files should be enters; an error that says what to do leaves, or nothing.  It blocks.
"""

from __future__ import annotations

import os

from ploinky.deploy_errors import ProbeFailed
from ploinky.deployment.documents import MANIFEST
from ploinky.values import Files

INDEX = "index.html"
_SHOWN = 10


def check_site(files: Files) -> None:
    """See that there is something to serve, and that it lies inside of the release.

    Raises:
        ProbeFailed: It does not, or there is nothing.
    """
    code = os.path.realpath(files.directory)
    root = os.path.realpath(os.path.join(code, files.root))
    name = files.root or "the agent's directory"
    if os.path.commonpath([code, root]) != code:
        raise ProbeFailed(
            f"static.root: {name} is a link that leads out of the release; make it a directory"
        )
    if not os.path.isdir(root):
        there = "a file" if os.path.exists(root) else "not there"
        raise ProbeFailed(
            f"static.root: {name} should be the directory with the files, and is {there}; the"
            f" agent has {_listed(code)}. Name the right one in static.root, or let install build it"
        )
    if files.spa and not os.path.isfile(os.path.join(root, INDEX)):
        raise ProbeFailed(
            f"static.spa: every page is answered with {INDEX}, and {name} has none; it has"
            f" {_listed(root)}"
        )
    if not _has_a_file(root, code):
        raise ProbeFailed(
            f"static.root: there is no file in {name}; let install build some, or add an {INDEX}"
        )


def _listed(directory: str) -> str:
    names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more


def _has_a_file(root: str, code: str) -> bool:
    """Tell whether there is at least one file that would be shown."""
    unseen = os.path.join(code, MANIFEST)
    for parent, directories, names in os.walk(root):
        directories[:] = [name for name in directories if not name.startswith(".")]
        files = (os.path.join(parent, name) for name in names if not name.startswith("."))
        if any(os.path.isfile(file) and file != unseen for file in files):
            return True
    return False
