"""Where a deployment's things lie, and what a runtime needs in order to start one instance of it.

A `Release` enters, an `InstanceSpec` or a `Route` leaves.  Pure: no I/O.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, frozen

from ploinky.deployment.manifest import Manifest
from ploinky.errors import ValidationFailed
from ploinky.instance_values import InstanceSpec
from ploinky.settings import Settings
from ploinky.values import (
    Address,
    Deployment,
    DeploymentKey,
    Files,
    Kind,
    Release,
    Route,
    Target,
    Wire,
)


@frozen
class Layout:
    """Names of directories below the data directory.

    Attributes:
        data_directory: Absolute.
    """

    data_directory: Path

    @property
    def deployments(self) -> Path:
        """One directory a deployment, by its id."""
        return self.data_directory / "deployments"

    @property
    def queues(self) -> Path:
        """One directory an instance; short, for the sake of the sockets in it."""
        return self.data_directory / "run" / "i"

    def deployment(self, deployment_id: str) -> Path:
        """All that belongs to one deployment: ``releases/`` and ``volumes/``."""
        return self.deployments / deployment_id

    def releases(self, deployment_id: str) -> Path:
        """One directory a release, by its number."""
        return self.deployment(deployment_id) / "releases"

    def code(self, deployment_id: str, number: int) -> Path:
        """A release's own copy of the code."""
        return self.releases(deployment_id) / str(number)

    def queue(self, instance: str) -> Path:
        """An instance's queue."""
        return self.queues / instance


@define
class Plans:
    """What a release means for this server.

    Attributes:
        cluster: This server's id.
        settings: May be replaced while the server runs.
    """

    cluster: str
    layout: Layout
    settings: Settings

    def spec(self, release: Release, key: DeploymentKey, instance: str) -> InstanceSpec:
        """Give what a runtime needs for one instance of a release."""
        manifest = Manifest.of(release.settings)
        code = ""
        if release.commit:
            code = str(self.layout.code(release.deployment, release.number))
        wanted = {
            "PLOINKY_AGENT": release.request.agent,
            "PLOINKY_DOMAIN": key.domain,
            "PLOINKY_PATH": key.path,
            "PLOINKY_RELEASE": str(release.number),
            "PLOINKY_TRANSPORT": manifest.wire.value,
            "PLOINKY_CONCURRENCY": str(manifest.concurrency),
        }
        if manifest.engine:
            wanted["PLOINKY_ENGINE"] = manifest.engine
        return InstanceSpec(
            instance=instance,
            deployment=release.deployment,
            release=release.number,
            cluster=self.cluster,
            key=key,
            agent=release.request.agent,
            kind=kind_of(release),
            image=release.image,
            queue_directory=str(self.layout.queue(instance)),
            code_directory=code,
            command=manifest.command,
            entrypoint=manifest.entrypoint,
            environment={**release.environment, **wanted},
            wire=manifest.wire,
            port=manifest.port,
            health=manifest.health,
            resources=manifest.resources,
            concurrency=manifest.concurrency,
            user=manifest.user,
            capabilities=manifest.capabilities,
            volumes=manifest.volumes,
        )

    def static_target(self, release: Release) -> Target:
        """Give what stands for an instance of a static release.

        The same whenever it is asked for, so that a new leader drains what an old one routed to.
        """
        manifest = Manifest.of(release.settings)
        root = manifest.static.root if manifest.static else "."
        files = Files(
            directory=str(self.layout.code(release.deployment, release.number)),
            root="" if root == "." else root,
            spa=manifest.static.spa if manifest.static else False,
        )
        return Target(f"{release.deployment}.{release.number}", Address(), files=files)

    def route(self, deployment: Deployment, release: Release, targets: tuple[Target, ...]) -> Route:
        """Give the route to a release's instances."""
        manifest = Manifest.of(release.settings)
        timeout_seconds = manifest.timeout_seconds or self.settings.task_timeout_ms / 1000
        return Route(
            key=deployment.key,
            kind=kind_of(release),
            deployment=deployment.id,
            release=release.number,
            targets=targets,
            timeout_seconds=timeout_seconds,
            max_body_bytes=self.settings.max_body_bytes,
            max_upload_bytes=min(
                self.settings.max_upload_bytes,
                manifest.max_upload_bytes or self.settings.max_upload_bytes,
            ),
            concurrency=manifest.concurrency,
            auth=manifest.auth,
            rate_limit=manifest.rate_limit,
            retries=manifest.retries,
        )


def kind_of(release: Release) -> Kind:
    """Tell what a release is."""
    return Kind.EXTERNAL if release.request.target else Manifest.of(release.settings).kind


def replicas_of(release: Release) -> int:
    """Tell how many instances a release wants; an external or static one has none of ours."""
    if kind_of(release) in (Kind.EXTERNAL, Kind.STATIC):
        return 0
    return Manifest.of(release.settings).replicas


def external_target(target: str, layout: Layout, *, any_socket: bool) -> Target:
    """Read where an external deployment leads: ``http://host:port`` or ``unix:PATH``.

    Args:
        any_socket: Whether the caller (an admin) may name a Unix socket of this host: behind
            one may be a container engine, which is the host itself.

    Raises:
        ValidationFailed: It is neither, or not for this caller, or this server's own.
    """
    if target.startswith("unix:"):
        path = Path(target.removeprefix("unix:"))
        if not path.is_absolute() or ".." in path.parts:
            raise ValidationFailed({"target": "expected unix: and an absolute path"})
        if not any_socket:
            raise ValidationFailed({"target": "only an admin may lead to a Unix socket"})
        if path.is_relative_to(layout.data_directory):
            raise ValidationFailed({"target": "this socket belongs to the server itself"})
        return Target("", Address(path=str(path)), Wire.HTTP)
    parts = urlsplit(target)
    try:
        port = parts.port
    except ValueError:
        port = None
    plain = f"http://{parts.netloc}"
    if not parts.hostname or not port or target.rstrip("/") != plain or parts.username is not None:
        raise ValidationFailed(
            {"target": f"expected http://host:port or unix:PATH, got {target[:200]!r}"}
        )
    return Target("", Address(host=parts.hostname, port=port), Wire.HTTP)
