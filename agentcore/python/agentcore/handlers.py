"""The agent's Python code: where it is found, and when it is loaded.

Files enter, functions `(params, context) -> result` leave.  Calls none of them.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import threading
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional

from .tasks import is_command_name


class Handlers:
    """The agent's code: loaded once, on first use; `agent.py` at once."""

    def __init__(self, agent_dir: str) -> None:
        self._agent_dir = agent_dir
        self._functions: Dict[str, Callable[..., Any]] = {}
        self._handlers: Dict[str, Callable[..., Any]] = {}
        self._loading: Dict[str, threading.Lock] = {}

    def load_agent(self) -> List[Dict[str, Optional[str]]]:
        """Load `agent.py` where there is one, and list its public functions."""
        file = os.path.join(self._agent_dir, "agent.py")
        if not os.path.exists(file):
            return []
        module = _load_module("agent", file)
        listed = getattr(module, "__all__", None)
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == "agent"
            public = name in listed if listed is not None else own and name[0] != "_"
            if public and callable(value) and is_command_name(name):
                self._functions[name] = _adapt(value)
        return [
            {"name": name, "about": (inspect.getdoc(function) or "").split("\n")[0] or None}
            for name, function in self._functions.items()
        ]

    def find(self, file: Optional[str], name: str) -> Callable[..., Any]:
        """Give the function that serves a command, loading its file where need be."""
        if file is None:
            return self._functions[name]
        if file not in self._handlers:
            with self._loading.setdefault(file, threading.Lock()):
                if file not in self._handlers:
                    self._handlers[file] = self._load(file, name)
        return self._handlers[file]

    def _load(self, file: str, name: str) -> Callable[..., Any]:
        module = _load_module("handler_" + name.replace(".", "_"), file)
        handle = getattr(module, "handle", None)
        if not callable(handle):
            path = os.path.relpath(file, self._agent_dir)
            raise TypeError(f"{path} has no function handle(params, context).")
        return _adapt(handle)


def _load_module(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _adapt(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a handler take fewer than its two arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return function
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(parameter.kind in positional for parameter in parameters)
    if count >= 2:
        return function
    if inspect.iscoroutinefunction(function):

        async def call_async(*arguments: Any) -> Any:
            return await function(*arguments[:count])

        call_async.__doc__ = function.__doc__
        return call_async

    def call(*arguments: Any) -> Any:
        return function(*arguments[:count])

    call.__doc__ = function.__doc__
    return call
