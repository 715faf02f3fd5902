"""The manager's contract, held by the stand-in for the API's tests and by the real one alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from ploinky.interfaces import IDeploymentManager
from ploinky.testing.api import MemoryDeploymentManager
from ploinky.testing.contracts.deployment import URL, DeploymentManagerContract, now
from ploinky.testing.deployment import MemoryPlatform
from ploinky.testing.store import MemoryDeploymentStore


class TestMemoryDeploymentManager(DeploymentManagerContract):
    """The stand-in."""

    @pytest.fixture
    def manager(self) -> MemoryDeploymentManager:
        """A new one."""
        return MemoryDeploymentManager(MemoryDeploymentStore())


class TestDeploymentManager(DeploymentManagerContract):
    """The real one, among neighbours in memory."""

    @pytest.fixture
    def manager(self, tmp_path: Path) -> IDeploymentManager:
        """One that has recovered."""
        platform = MemoryPlatform(tmp_path)
        platform.source.origin(URL).commit({"demo/manifest.json": "{}"})
        now(platform.manager.recover())
        verifyObject(IDeploymentManager, platform.manager)
        return platform.manager
