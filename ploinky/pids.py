"""Whether a pid stands for the process that it stood for, and whether that is still there.

Linux's ``/proc`` enters.  A pid alone may have been given to another process meanwhile; a pid and
its start time may not.  A process that was killed has its pid for as long as nobody has asked how
it ended, and its locks for as long as one of its threads has not come back from the kernel.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_SIGKILL_BIT = 1 << 8


def start_time(pid: int) -> int:
    """Give when a process started, in clock ticks since boot (proc(5), stat, field 22); 0 if it
    does not run.
    """
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        if fields[0] not in "ZX":
            return int(fields[19])
    return 0


def is_ending(pid: int) -> bool:
    """Tell whether a process has ended, or will without having a say in it: it was killed."""
    if not start_time(pid):
        return True
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        fields = dict(line.partition(":")[::2] for line in status.splitlines())
        return any(int(fields[name], 16) & _SIGKILL_BIT for name in ("SigPnd", "ShdPnd"))
    return True
