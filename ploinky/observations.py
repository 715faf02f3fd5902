"""What is observed of instances: what they use, what they print, how they end.

Values like those in `ploinky.values`; the runtime makes them, telemetry keeps and the API shows them.
"""

from __future__ import annotations

from attrs import field, frozen

LAST_WORDS_BYTES = 1024 * 1024
"""How much of an instance's output is kept when it is removed."""


@frozen
class InstanceUsage:
    """What an instance uses.

    Attributes:
        cpu_seconds: Processor time since its last start.
        memory_bytes: In use now, without what the kernel could drop at once.
        memory_limit_bytes: That it may use; None: as much as there is.
        processes: That run now; None where the runtime does not tell.
    """

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int | None = None
    processes: int | None = None


@frozen
class OutputPart:
    """Some of what an instance printed.

    Attributes:
        text: Whole lines, but for the very last one.
        mark: Stands for the place behind it; opaque, and of no use to another runtime.
    """

    text: str
    mark: str


_MEANINGS = {
    126: "its command is not executable",
    127: "its command was not found",
    134: "it gave up, perhaps for want of memory",
    137: "it was killed, perhaps for want of memory",
    139: "it crashed (segmentation fault)",
}


def exit_code_in_words(exit_code: int) -> str:
    """Give the exit code of a program that a shell or a container ran, and what it mostly means.

    Source: exit status in bash(1); 134 is of abort(3), which Node calls where it gets no memory.
    """
    meaning = _MEANINGS.get(exit_code)
    return f"exit code {exit_code}" + (f": {meaning}" if meaning else "")


@frozen
class InstanceDeath:
    """How an instance ended that should have gone on.

    Attributes:
        at: Unix seconds at which that was noticed.
        reason: In words.
        failed_at: One of `ploinky.errors.PARTS`.
        exit_code: None where it runs still, or the engine cannot tell.
        probe: What it answered when it was asked last, in words; ``""`` where it was not asked.
        output: The last lines that it printed.
    """

    instance: str
    deployment: str
    release: int
    at: float
    reason: str
    failed_at: str
    exit_code: int | None = None
    out_of_memory: bool = False
    probe: str = ""
    output: str = field(default="", repr=False)

    @property
    def outline(self) -> str:
        """What a caller is told: how it ended, and no word of the agent's own."""
        if self.out_of_memory:
            return f"it was ended for its memory limit (exit code {self.exit_code})"
        if self.exit_code is not None:
            return f"it ended with {exit_code_in_words(self.exit_code)}"
        if self.failed_at == "probe":
            return "it did not answer its probes any more, and was ended"
        return "it was removed, or ended in a way that nobody saw"
