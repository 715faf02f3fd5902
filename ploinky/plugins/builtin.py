"""What ploinky itself registers, in the same way as any other plugin.

Each object names its implementation by a string, so that looking through the plugins imports
neither the Docker SDK nor anything else.
"""

from __future__ import annotations

import importlib
from typing import Any

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from ploinky.interfaces import IAuthenticator, IAuthenticatorFactory, IRuntime, IRuntimeFactory


@implementer(IPlugin, IRuntimeFactory)
@frozen
class RuntimePlugin:
    """An `IRuntimeFactory` whose `available` and `create` are functions of a module."""

    name: str
    about: str
    module: str

    def describe(self) -> str:
        """See `IRuntimeFactory`."""
        return self.about

    async def available(self, reactor: Any) -> str:
        """See `IRuntimeFactory`."""
        reason: str = await importlib.import_module(self.module).available(reactor)
        return reason

    async def create(self, reactor: Any, settings: Any) -> IRuntime:
        """See `IRuntimeFactory`."""
        made: IRuntime = await importlib.import_module(self.module).create(reactor, settings)
        return made


@implementer(IPlugin, IAuthenticatorFactory)
@frozen
class AuthenticatorPlugin:
    """An `IAuthenticatorFactory` whose `available` and `create` are functions of a module."""

    name: str
    about: str
    module: str

    def describe(self) -> str:
        """See `IAuthenticatorFactory`."""
        return self.about

    async def available(self, reactor: Any) -> str:
        """See `IAuthenticatorFactory`."""
        reason: str = await importlib.import_module(self.module).available(reactor)
        return reason

    async def create(self, reactor: Any, settings: Any, keys: Any) -> IAuthenticator:
        """See `IAuthenticatorFactory`."""
        module = importlib.import_module(self.module)
        made: IAuthenticator = await module.create(reactor, settings, keys)
        return made


docker = RuntimePlugin("docker", "containers, by Docker", "ploinky.runtime.docker")
podman = RuntimePlugin("podman", "containers, by Podman", "ploinky.runtime.podman")
process = RuntimePlugin(
    "process", "processes of this host, in bubblewrap where it works", "ploinky.runtime.process"
)
keys = AuthenticatorPlugin("keys", "API keys and login sessions", "ploinky.security.authenticator")
