"""Tells the engine to stop in the moment in which it says that it is ready."""

import os
import signal

rename = os.rename


def told(source, target):
    rename(source, target)
    if target.endswith("/ready"):
        os.kill(os.getpid(), signal.SIGTERM)


os.rename = told
