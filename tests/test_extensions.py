"""Plugins of strangers are found, and what is wrong with them is said."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.plugin import IPlugin
from zope.interface import implementer

from ploinky.deploy_errors import EngineUnavailable
from ploinky.engines import note_runtime, start_runtime
from ploinky.extensions import load, select_runtime
from ploinky.interfaces import IAuthenticatorFactory, IRuntimeFactory
from ploinky.settings import Settings

GOOD = """
    from twisted.plugin import IPlugin
    from zope.interface import implementer
    from ploinky.interfaces import IRuntimeFactory

    @implementer(IPlugin, IRuntimeFactory)
    class Acme:
        name = "acme"
        def describe(self):
            return "an example"
        async def available(self, reactor):
            return ""
        async def create(self, reactor, settings):
            from ploinky.testing.runtime import MemoryHost, MemoryRuntime
            return MemoryRuntime(reactor, MemoryHost())

    acme = Acme()
"""

_numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Makes a plugin package out of the sources of its modules."""

    def make(**sources: str) -> ModuleType:
        name = f"plugins_of_test_{next(_numbers)}"
        directory = tmp_path / name
        directory.mkdir()
        (directory / "__init__.py").touch()
        for module, source in sources.items():
            (directory / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module(name)

    return make


def test_the_built_in_ones_are_there() -> None:
    """Docker, Podman, processes; and keys to log in with."""
    runtimes, problems = load(IRuntimeFactory)
    assert set(runtimes) >= {"docker", "podman", "process"}
    assert problems == []
    assert all(each.describe() for each in runtimes.values())
    authenticators, problems = load(IAuthenticatorFactory)
    assert set(authenticators) == {"keys"}
    assert problems == []


def test_looking_for_plugins_imports_no_engine() -> None:
    """The Docker SDK is slow to import, and not everybody has use for it."""
    program = (
        "import sys; from ploinky.extensions import load;"
        "from ploinky.interfaces import IRuntimeFactory; load(IRuntimeFactory);"
        "print([m for m in ('docker', 'ploinky.runtime', 'twisted.internet.reactor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_strangers_runtime_is_found_beside_a_broken_one(tmp_path: Path) -> None:
    """A distribution of its own adds `ploinky/plugins/acme.py`; another's does not even compile."""
    plugins = tmp_path / "ploinky" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "acme.py").write_text(textwrap.dedent(GOOD))
    (plugins / "broken.py").write_text("import no_such_module_at_all\n")
    program = textwrap.dedent("""
        import json
        from ploinky.extensions import load
        from ploinky.interfaces import IRuntimeFactory
        found, problems = load(IRuntimeFactory)
        print(json.dumps([sorted(found), [str(each) for each in problems]]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    found, problems = json.loads(done.stdout)
    assert found == ["acme", "docker", "podman", "process"], done.stderr
    (problem,) = problems
    assert problem.startswith("ploinky.plugins.broken: cannot be imported: ModuleNotFoundError")
    assert "no_such_module_at_all" in problem
    assert list(plugins.glob("dropin.cache")) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "raise RuntimeError('out of\\n  order')",
            "cannot be imported: RuntimeError: out of order",
        ),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("def", "cannot be imported: SyntaxError"),
        (GOOD.replace("async def create", "async def produce"), "create"),
        (GOOD.replace("async def available", "def available"), "available must be `async def`"),
        (GOOD.replace("(self, reactor, settings)", "(self)"), "is no IRuntimeFactory"),
        (GOOD.replace('name = "acme"', ""), "name"),
        (GOOD.replace('name = "acme"', 'name = "auto"'), "its name 'auto'"),
        (GOOD.replace('name = "acme"', 'name = "a b"'), "its name 'a b'"),
        (GOOD.replace('name = "acme"', "name = property(lambda self: 1 / 0)"), "ZeroDivisionError"),
    ],
)
def test_a_broken_plugin_is_named_with_its_reason(
    package: Callable[..., ModuleType], source: str, said: str
) -> None:
    """And those beside it are used."""
    searched = package(bad=source, good=GOOD.replace('"acme"', '"fine"'))
    found, problems = load(IRuntimeFactory, searched)
    assert set(found) == {"fine"}
    (problem,) = problems
    assert problem.name.startswith(f"{searched.__name__}.bad")
    assert said in problem.reason
    assert "\n" not in str(problem)


def test_of_two_with_one_name_neither_is_used(package: Callable[..., ModuleType]) -> None:
    """Both places are shown: which of them came first would be chance."""
    searched = package(one=GOOD, two=GOOD)
    found, problems = load(IRuntimeFactory, searched)
    assert found == {}
    assert len(problems) == 2
    for problem in problems:
        assert f"{searched.__name__}.one.acme" in problem.reason
        assert f"{searched.__name__}.two.acme" in problem.reason


def test_a_built_in_name_is_not_taken_over(package: Callable[..., ModuleType]) -> None:
    """A stranger who calls himself like one of ours is reported."""
    searched = package(builtin=GOOD, two=GOOD)
    found, problems = load(IRuntimeFactory, searched)
    assert type(found["acme"]).__module__ == f"{searched.__name__}.builtin"
    assert [each.name for each in problems] == [f"{searched.__name__}.two.acme"]


def test_one_plugin_seen_from_two_modules_is_one(package: Callable[..., ModuleType]) -> None:
    """A module that imports another's plugin does not repeat its name."""
    searched = package(one=GOOD)
    again = Path(searched.__path__[0], "two.py")
    again.write_text(f"from {searched.__name__}.one import acme\n")
    found, problems = load(IRuntimeFactory, searched)
    assert (set(found), problems) == ({"acme"}, [])


# --- choosing one


@implementer(IPlugin, IRuntimeFactory)
class Factory:
    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason

    def describe(self) -> str:
        return self.name

    async def available(self, reactor: Any) -> str:
        if self.reason == "raise":
            raise RuntimeError("a fault of its own")
        return self.reason

    async def create(self, reactor: Any, settings: Any) -> Any:
        return f"the runtime {self.name}"


def factories(**reasons: str) -> dict[str, Factory]:
    return {name: Factory(name, reason) for name, reason in reasons.items()}


@pytest_twisted.ensureDeferred
async def test_auto_takes_the_first_that_is_available() -> None:
    """Docker before Podman before processes before others."""
    choice = factories(acme="", process="", podman="", docker="is not here")
    assert await select_runtime("auto", None, None, choice) == "the runtime podman"
    choice = factories(acme="", process="no", podman="no", docker="no")
    assert await select_runtime("auto", None, None, choice) == "the runtime acme"


@pytest_twisted.ensureDeferred
async def test_a_runtime_that_is_not_available_says_why() -> None:
    """With its next step; no other is taken in its place."""
    choice = factories(docker="nothing listens. Start it.", process="")
    with pytest.raises(EngineUnavailable) as caught:
        await select_runtime("docker", None, None, choice)
    assert "docker: nothing listens. Start it." in caught.value.message


@pytest_twisted.ensureDeferred
async def test_a_runtime_that_does_not_exist_lists_those_that_do() -> None:
    """A typing mistake is seen at once."""
    with pytest.raises(EngineUnavailable, match=r"'dokcer'.*auto, docker, process"):
        await select_runtime("dokcer", None, None, factories(docker="", process=""))


@pytest_twisted.ensureDeferred
async def test_a_plugin_that_raises_is_passed_over() -> None:
    """It does not take the server down."""
    choice = factories(docker="raise", process="")
    assert await select_runtime("auto", None, None, choice) == "the runtime process"
    with pytest.raises(EngineUnavailable, match="RuntimeError: a fault of its own"):
        await select_runtime("docker", None, None, choice)


async def started(directory: Path, *, is_used: bool) -> str:
    """Start what ``auto`` means for a data directory; give its name."""
    settings = Settings(directory=directory)
    settings.run_directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as rooms:
        runtime = await start_runtime(reactor, settings, rooms, is_used=is_used)
        note_runtime(settings, runtime, is_used=is_used)
    return str(runtime.name)


@pytest_twisted.ensureDeferred
async def test_auto_stays_where_it_was_while_something_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine that answers knows nothing of the instances; who wants it names it."""
    for name in ("DOCKER_HOST", "PODMAN_SOCK", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/nobody.sock")
    first = await started(tmp_path, is_used=False)
    assert first != "docker"
    kept = Settings(directory=tmp_path).data_directory / "runtime"
    assert kept.read_text() == f"{first}\n"
    kept.write_text("docker\n")
    with pytest.raises(EngineUnavailable, match=r"runs on docker.*--runtime"):
        await started(tmp_path, is_used=True)
    kept.write_text("process\n")
    assert await started(tmp_path, is_used=True) == "process"
    kept.write_text("a-plugin-that-is-gone\n")
    assert await started(tmp_path, is_used=True) == first
