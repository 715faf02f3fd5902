"""What the wheel is made of."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_named_in_setup_cfg() -> None:
    """Packages are listed one by one: one that is forgotten would be missing from the wheel only."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for path in (ROOT / "ploinky").rglob("__init__.py")
    }
    assert there <= listed
    elsewhere = dict(re.findall(r"(\S+) = (\S+)", setup["options"]["package_dir"]))
    places = {elsewhere.get(name, name.replace(".", "/")) for name in listed}
    assert all((ROOT / place).is_dir() for place in places)
