"""Plugins: found, verified, and where they cannot be used, reported by name and reason.

``twisted.plugin`` only logs a module that cannot be imported and hands out objects that lack
methods, so the modules of the package that it searches are looked through here.  A plugin is
foreign code: whatever it raises is told of and stays there.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from ploinky import plugins
from ploinky.deploy_errors import EngineUnavailable
from ploinky.errors import PloinkyError
from ploinky.interfaces import IAuthenticatorFactory, IRuntime, IRuntimeFactory
from ploinky.settings import AUTO

PREFERRED = ("docker", "podman", "process")
"""The order in which ``auto`` asks; other plugins follow by name."""

ASYNCHRONOUS: Mapping[Any, tuple[str, ...]] = types.MappingProxyType(
    {
        IRuntimeFactory: ("available", "create"),
        IAuthenticatorFactory: ("available", "create"),
    }
)
"""Methods that must be ``async def``; an interface does not remember that it said so."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_log = Logger()


@frozen
class Problem:
    """A plugin that is not used.

    Attributes:
        name: ``module``, or ``module.object``.
        reason: One line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def load(
    interface: Any, package: types.ModuleType = plugins
) -> tuple[dict[str, Any], list[Problem]]:
    """Find all plugins that provide an interface.

    Args:
        interface: `IRuntimeFactory` or `IAuthenticatorFactory`.
        package: Whose modules are looked through; they are imported.

    Returns:
        The usable ones by name, and why the others are not.  Of two with one name the built-in
        one is used, else neither, as whichever came first would be chance.
    """
    problems: list[Problem] = []
    candidates: dict[str, list[tuple[str, Any]]] = {}
    for module in _modules(package, problems):
        for place, candidate in _candidates(module, interface):
            reason = _fault(candidate, interface)
            if reason:
                problems.append(Problem(place, reason))
            else:
                candidates.setdefault(candidate.name, []).append((place, candidate))
    found = {}
    for name, same in candidates.items():
        chosen = _chosen(name, same, package, problems)
        if chosen is not None:
            found[name] = chosen
    return found, problems


def _modules(package: types.ModuleType, problems: list[Problem]) -> Iterator[types.ModuleType]:
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        name = f"{package.__name__}.{info.name}"
        try:
            yield importlib.import_module(name)
        except (Exception, SystemExit) as error:  # whatever a stranger's module raises
            problems.append(
                Problem(name, f"cannot be imported: {type(error).__name__}: {_first_line(error)}")
            )


def _candidates(module: types.ModuleType, interface: Any) -> Iterator[tuple[str, Any]]:
    for attribute, value in sorted(vars(module).items()):
        if not isinstance(value, type) and interface.providedBy(value):
            yield f"{module.__name__}.{attribute}", value


def _fault(candidate: Any, interface: Any) -> str:
    """Tell what it lacks of what it claims to provide; ``""`` if nothing."""
    try:
        verifyObject(interface, candidate)
        name = candidate.name
    except Invalid as error:
        return f"is no {interface.__name__}: {_first_line(error)}"
    except Exception as error:  # a property of a stranger's
        return f"cannot be looked at: {type(error).__name__}: {_first_line(error)}"
    if not isinstance(name, str) or not _NAME.match(name) or name == AUTO:
        return f"its name {name!r} is not of a-z, 0-9, _ and -, or is taken"
    plain = [
        method
        for method in ASYNCHRONOUS.get(interface, ())
        if not inspect.iscoroutinefunction(getattr(candidate, method))
    ]
    if plain:
        return f"{' and '.join(plain)} must be `async def`"
    return ""


def _chosen(
    name: str, same: list[tuple[str, Any]], package: types.ModuleType, problems: list[Problem]
) -> Any:
    """Give the one plugin of a name, and report the others with both places."""
    distinct = {id(candidate): (place, candidate) for place, candidate in reversed(same)}
    if len(distinct) == 1:
        return same[0][1]
    ours = f"{package.__name__}.builtin."
    built_in = next((each for each in distinct.values() if each[0].startswith(ours)), None)
    others = sorted(
        place for place, candidate in distinct.values() if (place, candidate) != built_in
    )
    if built_in is None:
        reason = f"the name {name!r} is given by {' and by '.join(others)}: none of them is used"
        problems.extend(Problem(place, reason) for place in others)
        return None
    reason = f"the name {name!r} is the built-in one's, {built_in[0]}, which is used"
    problems.extend(Problem(place, reason) for place in others)
    return built_in[1]


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


async def select_runtime(
    setting: str, reactor: Any, settings: Any, factories: Mapping[str, Any]
) -> IRuntime:
    """Make the runtime that a setting names.

    Args:
        setting: A factory's name, or ``auto``: the first that is available.
        factories: As `load` gives them.

    Returns:
        An `IRuntime`; where it is an ``IService`` too, the caller starts and stops it.

    Raises:
        EngineUnavailable: It (or none of them) can be used, with the reasons and the next step.
    """
    if setting != AUTO and setting not in factories:
        known = ", ".join([AUTO, *sorted(factories)])
        raise EngineUnavailable(f"There is no runtime {setting!r}; choose one of {known}.")
    reasons = []
    for name in _in_order(factories) if setting == AUTO else [setting]:
        reason = await _try(factories[name], reactor)
        if not reason:
            made: IRuntime = await factories[name].create(reactor, settings)
            return made
        _log.debug("runtime {name} is not available: {reason}", name=name, reason=reason)
        reasons.append(f"{name}: {reason}")
    raise EngineUnavailable(
        f"The runtime cannot be used. {reasons[0]}"
        if len(reasons) == 1
        else "No runtime can be used. " + "; ".join(reasons)
    )


def _in_order(factories: Mapping[str, Any]) -> list[str]:
    preferred = [name for name in PREFERRED if name in factories]
    return preferred + sorted(set(factories) - set(preferred))


async def _try(factory: Any, reactor: Any) -> str:
    try:
        return str(await factory.available(reactor))
    except CancelledError:
        raise
    except PloinkyError as error:
        return error.message
    except Exception as error:  # a stranger's
        _log.failure("a plugin's available() raised")
        return f"could not tell: {type(error).__name__}: {_first_line(error)}"
