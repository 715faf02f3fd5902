"""From what an engine says of an instance that ended to words, and to the part that failed.  Pure."""

from __future__ import annotations

from typing import Any

from ploinky.errors import AGENT, MEMORY
from ploinky.instance_values import InstanceStatus
from ploinky.observations import InstanceDeath, exit_code_in_words

OUTPUT_LINES = 50


def how_it_ended(status: InstanceStatus) -> str:
    """Say it for people."""
    if status.out_of_memory:
        return f"It was ended for its memory limit (exit code {status.exit_code})"
    if status.exit_code is None:
        return "It ended"
    return f"It ended with {exit_code_in_words(status.exit_code)}"


def death_of(status: InstanceStatus, at: float, printed: str) -> InstanceDeath:
    """Give the death of one that was found dead."""
    return InstanceDeath(
        instance=status.instance,
        deployment=status.deployment,
        release=status.release,
        at=at,
        reason=how_it_ended(status),
        failed_at=part_that_failed(status),
        exit_code=status.exit_code,
        out_of_memory=status.out_of_memory,
        output=last_words(printed),
    )


def last_words(printed: str) -> str:
    """Give the last lines of what an instance printed."""
    return "".join(printed.splitlines(keepends=True)[-OUTPUT_LINES:])


def part_that_failed(status: InstanceStatus | None) -> str:
    """Tell which part failed where an instance ended by itself, or hangs (None)."""
    if status is None:
        return "probe"
    if status.out_of_memory:
        return MEMORY
    return "start" if status.exit_code in (126, 127) else AGENT


def how_it_was_seen(status: InstanceStatus | None) -> dict[str, Any]:
    """Give what the engine knows of an end, for errors' ``details``."""
    if status is None:
        return {}
    return {"exitCode": status.exit_code, "outOfMemory": status.out_of_memory}
