"""The part of an agent's `manifest.json` that runs inside the container.

The agent's directory enters, a `Manifest` leaves.  What else stands there is the
server's business.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional

from .tasks import Failure, is_command_name


class Manifest:
    """What the engine needs to know of an agent.

    Attributes:
        commands: Shell commands by name.
        run_task: The shell command for every task that nothing else handles.
        timeout: Seconds per task, or None.
        concurrency: Tasks at once, or None.
    """

    def __init__(self, fields: object) -> None:
        """Check what the manifest says.

        Raises:
            Failure: MANIFEST_INVALID, with the field's path and what was expected.
        """
        if not isinstance(fields, dict):
            raise _invalid("manifest.json: expected an object")
        self.commands: Dict[str, str] = _commands(fields.get("commands", {}))
        self.run_task: Optional[str] = _optional(fields, "runTask", "a string", _is_string)
        self.timeout: Optional[float] = _optional(
            fields, "timeout", "a number of seconds", _is_positive
        )
        self.concurrency: Optional[int] = _optional(
            fields, "concurrency", "a whole number above 0", _is_positive_integer
        )


def _invalid(message: str) -> Failure:
    return Failure(500, "MANIFEST_INVALID", message)


def _commands(value: Any) -> Dict[str, str]:
    if not isinstance(value, dict):
        raise _invalid("manifest.json: commands: expected an object of shell commands")
    for name, command in value.items():
        if not is_command_name(name):
            raise _invalid(f"manifest.json: commands: {json.dumps(name)} is not a command's name")
        if not isinstance(command, str):
            raise _invalid(f"manifest.json: commands.{name}: expected a string")
    return value


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _optional(fields: Dict[str, Any], name: str, expected: str, check: Any) -> Any:
    value = fields.get(name)
    if value is not None and not check(value):
        raise _invalid(f"manifest.json: {name}: expected {expected}")
    return value


def read_manifest(agent_dir: str) -> Manifest:
    """Read `<agent_dir>/manifest.json`; an agent without one has an empty one.

    Raises:
        Failure: MANIFEST_INVALID, with line and column, or the field's path.
    """
    try:
        with open(os.path.join(agent_dir, "manifest.json"), encoding="utf-8") as file:
            return Manifest(json.load(file))
    except FileNotFoundError:
        return Manifest({})
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _invalid(f"manifest.json is not JSON ({place}): {error.msg}") from error
    except (OSError, ValueError) as error:
        raise _invalid(f"manifest.json cannot be read: {error}") from error
