"""The rivals and the client come from Debian's packages: `require` sees that they are there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.children import PROGRAMS, BenchmarkFailed

_PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "wrk": "wrk",
    "taskset": "util-linux",
    "setpriv": "util-linux",
    "git": "git",
}
_POLICY = Path("/usr/sbin/policy-rc.d")


def require() -> None:
    """Install what is missing where this is root's Debian; else say what to install.

    Raises:
        BenchmarkFailed: Something is missing.
    """
    missing = sorted({p for name, p in _PACKAGES.items() if not shutil.which(name, path=PROGRAMS)})
    if not missing:
        return
    install = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get", path=PROGRAMS) is None:
        raise BenchmarkFailed(f"not installed: {', '.join(missing)}.  As root: {install}")
    print(f"Installing: {install}")
    silenced = _forbid_services()
    try:
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run([*install.split(), "-y", "-qq"], check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"could not install: {install}") from error
    finally:
        if silenced:
            _POLICY.unlink()


def _forbid_services() -> bool:
    """Keep Debian from starting what it installs on ports of its own; tell if it was done."""
    if _POLICY.exists():
        return False
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    return True
