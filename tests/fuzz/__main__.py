"""``python -m tests.fuzz --seconds 600``: trial after trial, until one fails or the time is up."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz import trial


def main() -> int:
    """Run; give 0 where everything held."""
    asked = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--first", type=int, default=0, help="number of the first trial")
    asked.add_argument("--only", type=int, help="this trial alone")
    given = asked.parse_args()
    statuses: Counter[int] = Counter()
    steps = held = failed = 0
    began = time.monotonic()
    number = first = given.first if given.only is None else given.only
    with tempfile.TemporaryDirectory(prefix="plf") as place:
        while time.monotonic() - began < given.seconds:
            try:
                outcome = trial.run(number, Path(place))
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"trial {number} failed: --only {number} repeats it", flush=True)
            else:
                statuses.update(outcome.answered)
                steps += outcome.steps
                held = max(held, outcome.held)
            number += 1
            if given.only is not None or failed >= 10:
                break
    seconds = time.monotonic() - began
    print(
        f"{number - first} trials in {seconds:.0f} s, {steps} steps, {failed} failed; "
        f"at most {held} bytes held for a connection; "
        f"answers: {', '.join(f'{status} {count}' for status, count in sorted(statuses.items()))}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
