"""The Python engine: serves an agent's commands from inside its container.

Standard library only, Python 3.8 and newer.  `main` is where the parts meet; the
I/O loop lives in one process, in-process handlers (`worker`) in another, so that
no handler can take the agent down.
"""
