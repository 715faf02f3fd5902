"""Which handler serves which command.

The agent's directory and manifest enter, targets leave.  Read once at start, as a
release never changes.  Runs nothing itself.
"""

from __future__ import annotations

import ast
import os
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from .manifest import Manifest
from .tasks import Failure, is_command_name

_COMMENT = re.compile(r"(?:#!.*\n)?\s*#(?!!)[ \t]*(.*)")


class Target(NamedTuple):
    """What serves a command.

    Attributes:
        kind: `command`, `handler`, `script`, `function` or `runTask`.
        file: The path of a `handler` or `script`.
        command: The shell command of a `command` or `runTask`.
        about: One line about a `function`.
    """

    kind: str
    file: Optional[str] = None
    command: str = ""
    about: Optional[str] = None


class Catalogue:
    """The commands that an agent has."""

    def __init__(
        self, agent_dir: str, manifest: Manifest, functions: Iterable[Dict[str, Any]]
    ) -> None:
        self._targets: Dict[str, Target] = {}
        self._foreign: Dict[str, str] = {}
        self._run_task: Optional[Target] = None
        if manifest.run_task is not None:
            self._run_task = Target("runTask", command=manifest.run_task)
        for name, command in manifest.commands.items():
            self._targets[name] = Target("command", command=command)
        self._add_handlers(os.path.join(agent_dir, "handlers"))
        for function in functions:
            self._targets.setdefault(function["name"], Target("function", about=function["about"]))

    def find(self, command: str) -> Optional[Target]:
        """Give what serves a command, or None."""
        return self._targets.get(command, self._run_task)

    def list(self) -> List[Dict[str, str]]:
        """Give what `GET /commands` answers."""
        entries = []
        for name, target in sorted(self._targets.items()):
            entry = {"name": name, "kind": target.kind}
            about = _about(target.file) if target.file else target.about
            if about:
                entry["about"] = about
            entries.append(entry)
        return entries

    def unknown(self, command: str) -> Failure:
        """Give the failure for a command that nothing serves; it lists those there are."""
        commands = sorted(self._targets)
        message = f"There is no command {command}. "
        if command in self._foreign:
            message += f"({self._foreign[command]} is there, but this agent runs on Python.) "
        if commands:
            message += f"There are: {', '.join(commands)}."
        else:
            message += "This agent has no commands."
        return Failure(404, "UNKNOWN_COMMAND", message, {"commands": commands})

    def _add_handlers(self, directory: str) -> None:
        try:
            files = sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return
        for extension, kind in ((".py", "handler"), (".sh", "script"), ("", "script")):
            for file in files:
                path = os.path.join(directory, file)
                name = file[: len(file) - len(extension)]
                if not file.endswith(extension) or not is_command_name(name):
                    continue
                if (extension or os.access(path, os.X_OK)) and file != "__init__.py":
                    self._targets.setdefault(name, Target(kind, file=path))
        for file in files:
            name, extension = os.path.splitext(file)
            if extension in (".js", ".cjs", ".mjs"):
                self._foreign[name] = f"handlers/{file}"


def _about(file: str) -> Optional[str]:
    """Give the first line that a source file says about itself."""
    try:
        with open(file, encoding="utf-8", errors="replace") as source:
            text = source.read(65536)
        if file.endswith(".py"):
            text = ast.get_docstring(ast.parse(text)) or ""
            return text.split("\n")[0] or None
    except (OSError, SyntaxError, ValueError):
        return None
    found = _COMMENT.match(text)
    return found.group(1).strip() or None if found else None
