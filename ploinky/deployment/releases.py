"""From a request to a release that could be started: found, checked out, read, pulled, installed.

It writes one directory a release and nothing else; what is on record, what runs and what is routed
are others' business.  Errors of Git and of the engine become `DeployFailed` here, which says the step.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from ploinky.deploy_errors import (
    DeployFailed,
    EngineError,
    ImageFailed,
    ImageUnavailable,
    InstallFailed,
    SourceError,
    SourceFailed,
    UrlRefused,
)
from ploinky.deployment.agents import AgentFinder, Located
from ploinky.deployment.documents import MANIFEST, parse_manifest, read_manifest_file
from ploinky.deployment.manifest import Manifest, effective
from ploinky.deployment.spec import Layout, Plans, kind_of
from ploinky.errors import NotFound, ValidationFailed
from ploinky.interfaces import IRuntime
from ploinky.leader_interfaces import ISource
from ploinky.observations import exit_code_in_words
from ploinky.threads import Blocking
from ploinky.values import DeployRequest, Kind, Release

INSTALL_TIMEOUT_SECONDS = 900.0

OUTPUT_CHARACTERS = 16 * 1024
"""Kept of what a failed step printed."""

_READ_BY_AGENTCORE = ("commands", "runTask", "engine")

Say = Callable[[str, str], None]
"""Takes the step a deploy is in, and one line for people."""


@frozen
class Draft:
    """A release that is checked out and read, and not yet on record.

    Attributes:
        warnings: For whoever deploys.
    """

    release: Release
    warnings: tuple[str, ...] = ()


class ReleaseBuilder:
    """Makes releases.

    Args:
        blocking: Runs what touches the file system.
        new_id: Gives ids for throw-away containers.
    """

    def __init__(
        self,
        new_id: Callable[[], str],
        blocking: Blocking,
        source: ISource,
        finder: AgentFinder,
        runtime: IRuntime,
        plans: Plans,
    ) -> None:
        self._new_id = new_id
        self._blocking = blocking
        self._source = source
        self._finder = finder
        self._runtime = runtime
        self._plans = plans
        self._layout: Layout = plans.layout

    async def draft(self, release: Release, say: Say, *, fresh: bool) -> Draft:
        """Find the code, check it out and read its manifest.

        Args:
            release: So far a number and a request.
            fresh: Fetch even where the repository's mirror is young.

        Raises:
            RequestRefused: The manifest, or the request in its light, does not fit.
            UrlRefused: The repository is not one that this caller may name.
            SourceFailed: Git could not give the code.

        Where it fails, or is cancelled, call `discard`.
        """
        request = release.request
        if request.target:  # routed to like a service, whatever it is
            return Draft(attrs.evolve(release, settings={**request.settings, "kind": "service"}))
        image = _own_image(request)
        with _as_step(SourceFailed):
            say("source", f"Looking for {request.agent}")
            located = await self._finder.find(request, image=image, fresh=fresh)
        return await self._read(release, located, image, say)

    async def _read(self, release: Release, located: Located | None, image: str, say: Say) -> Draft:
        raw_manifest = None
        if located is not None:
            say("source", f"Checking out {located.place} at {located.commit[:12]}")
            raw_manifest = await self._checked_out(release, located)
            release = attrs.evolve(release, commit=located.commit)
        merged = effective(
            parse_manifest(raw_manifest) if raw_manifest is not None else {},
            release.request.settings,
            release.request.environment,
            image=image,
            image_only=located is None,
        )
        if merged.manifest.kind is Kind.STATIC and located is None:
            raise ValidationFailed(
                {
                    "kind": "static serves files of a repository, and this deployment has an image"
                    " alone; give an agent's repository, or leave kind out to run the image"
                }
            )
        await self._show_to_agentcore(release, merged.settings)
        release = attrs.evolve(release, settings=merged.settings, environment=merged.environment)
        return Draft(release, merged.warnings)

    async def _checked_out(self, release: Release, located: Located) -> bytes | None:
        destination = self._layout.code(release.deployment, release.number)
        with _as_step(SourceFailed):
            await self._blocking.run(_make_way, destination)
            await self._source.checkout(
                located.source, located.commit, located.sub_path, str(destination)
            )
        return await self._blocking.run(read_manifest_file, destination)

    async def _show_to_agentcore(self, release: Release, settings: Mapping[str, Any]) -> None:
        """Where the deployment overrides what AgentCore reads itself, let it read that."""
        if release.commit and any(name in release.request.settings for name in _READ_BY_AGENTCORE):
            code = self._layout.code(release.deployment, release.number)
            await self._blocking.run(_rewrite_manifest, code, dict(settings))

    async def build(self, release: Release, say: Say, *, updating: bool) -> Release:
        """See that the image is here, and run `install`, or ``update`` over an earlier release.

        Returns:
            The release with its image pinned.

        Raises:
            ImageFailed, InstallFailed
        """
        if release.request.target:
            return release
        manifest = Manifest.of(release.settings)
        shell_command = (updating and manifest.update) or manifest.install
        if manifest.kind is Kind.STATIC and not shell_command:
            return release  # nothing of it ever runs
        release = attrs.evolve(release, image=await self._image(release, say))
        if shell_command and release.commit:
            name = "update" if updating and manifest.update else "install"
            await self._run(release, name, shell_command, say)
        return release

    async def image_here(self, release: Release, say: Say) -> Release:
        """See that the image of a release that served before is still here, or get it again.

        Raises:
            ImageFailed: It is gone, and the name it had leads nowhere any more.
        """
        if kind_of(release) in (Kind.EXTERNAL, Kind.STATIC):
            return release
        if release.image:
            with contextlib.suppress(ImageUnavailable):
                with _as_step(ImageFailed, but=ImageUnavailable):
                    await self._runtime.prepare(release.image, lambda line: None)
                return release
        return attrs.evolve(release, image=await self._image(release, say))

    async def _image(self, release: Release, say: Say) -> str:
        image = Manifest.of(release.settings).image
        say("image", f"Looking for image {image}")
        with _as_step(ImageFailed):
            return await self._runtime.prepare(image, lambda line: say("image", line))

    async def _run(self, release: Release, name: str, shell_command: str, say: Say) -> None:
        say("install", f"Running {name}: {shell_command.strip().splitlines()[0][:120]}")
        spec = self._plans.spec(release, release.request.key, self._new_id())
        with _as_step(InstallFailed):
            result = await self._runtime.run_once(
                spec, shell_command, INSTALL_TIMEOUT_SECONDS, lambda line: say("install", line)
            )
        output = result.output[-OUTPUT_CHARACTERS:]
        if result.exit_code == 124:
            raise InstallFailed(
                f"{name} ran for over {INSTALL_TIMEOUT_SECONDS:.0f} s and was ended", output=output
            )
        if result.exit_code:
            how = exit_code_in_words(result.exit_code)
            raise InstallFailed(f"{name} ended with {how}", output=output)

    async def check_kept(self, release: Release) -> None:
        """See that a release that served before could be started again.

        Raises:
            NotFound: Its code is not kept any more.
        """
        code = self._layout.code(release.deployment, release.number)
        if release.commit and not await self._blocking.run(code.is_dir):
            raise NotFound(
                f"the code of release {release.number} is not kept any more; deploy its commit"
                f" {release.commit[:12]} with --branch, or raise the setting releasesKept"
            )

    async def discard(self, release: Release) -> None:
        """Delete a release's code, and with the only one the directories made for it."""
        await self._blocking.run(_discard, self._layout, release)

    async def keep_only(self, deployment_id: str, numbers: frozenset[int]) -> None:
        """Delete the code of all other releases of a deployment."""
        await self._blocking.run(
            _prune, self._layout.releases(deployment_id), frozenset(map(str, numbers))
        )

    async def forget(self, deployment_id: str) -> None:
        """Delete what belongs to a deployment, except its volumes."""
        await self._blocking.run(forget_deployment, self._layout, deployment_id)


def _own_image(request: DeployRequest) -> str:
    settings = request.settings
    return str(request.image or settings.get("image") or settings.get("container") or "")


@contextlib.contextmanager
def _as_step(failed: type[DeployFailed], but: type[Exception] = UrlRefused) -> Iterator[None]:
    """Say of an error from Git or an engine in which step it came up."""
    try:
        yield
    except but:
        raise
    except DeployFailed as error:
        if isinstance(error, failed):
            raise
        raise failed(error.message, output=error.output, details=error.details) from error
    except (SourceError, EngineError) as error:
        raise failed(error.message, details={"cause": error.code}) from error
    except OSError as error:
        raise failed(f"{error.filename}: {error.strerror}") from error


def _make_way(destination: Path) -> None:
    """Make the directory above; what an earlier attempt left at the place itself goes."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    remove_tree(destination)


def _rewrite_manifest(code: Path, document: dict[str, Any]) -> None:
    """Replace the file itself: were it a link, what it leads to would be left alone.

    It grows beside the code, where a repository has nothing that could be in the way.
    """
    scratch = code.with_name(f".{code.name}.{MANIFEST}")
    scratch.write_text(json.dumps(document, indent=2), encoding="utf-8")
    os.replace(scratch, code / MANIFEST)


def _prune(releases: Path, names: frozenset[str]) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in list(releases.iterdir()):
            if entry.name not in names:
                remove_tree(entry)


def _discard(layout: Layout, release: Release) -> None:
    remove_tree(layout.code(release.deployment, release.number))
    with contextlib.suppress(OSError):  # other releases, or volumes, are there
        layout.releases(release.deployment).rmdir()
        layout.deployment(release.deployment).rmdir()


def forget_deployment(layout: Layout, deployment_id: str) -> None:
    """Delete a deployment's code, and its directory unless volumes are in it.  Blocks."""
    remove_tree(layout.releases(deployment_id))
    with contextlib.suppress(OSError):  # volumes outlive their deployment
        layout.deployment(deployment_id).rmdir()


def remove_tree(directory: Path) -> None:
    """Delete a directory with all in it, as far as it can be.  Blocks.

    What an agent that ran as another user made in it may not be ours to delete.
    """
    shutil.rmtree(directory, ignore_errors=True)
