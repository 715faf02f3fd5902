"""What an agent says of itself, and what its deployment says over it, as one checked value.

A manifest's JSON object and a deployment's settings enter; `Effective` leaves: the settings a
release is built with, as JSON to be kept and as a typed `Manifest`.  Pure: no I/O, no clock.

A manifest comes from a repository nobody vouches for, so it cannot widen what its container may
do: `user` and `capabilities` count only as far as `_without_privileges` says, unless the
deployment itself asks for them.  Source: contract, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from ploinky.deployment.fields import FIELDS, SERVER_VARIABLES
from ploinky.deployment.readers import document, resembling
from ploinky.errors import EnvironmentMissing, ManifestInvalid, ValidationFailed
from ploinky.instance_values import Health, Resources, Volume
from ploinky.task_values import Schedule
from ploinky.values import CallAuth, Kind, RateLimit, Wire

DEFAULT_IMAGE = "node:18-alpine"

GIVEN_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
"""What Docker gives a container by itself (moby, profiles ``DefaultCapabilities``), less raw sockets."""

_CONCURRENCY = {Kind.TASK: 64, Kind.SERVICE: 10_000, Kind.STATIC: 10_000}
"""Where nothing is said: a task takes a handler each, a service has its own ways to say no."""

_NOT_YET = ("idle",)
_NO_EFFECT = "{} is kept, but has no effect in this version"

_MERGED = ("env", "commands", "health", "resources", "static")
"""Objects that a deployment changes entry by entry; any other field it replaces as a whole."""


@frozen
class StaticFiles:
    """Files that the gateway serves itself.

    Attributes:
        root: Directory below the code.
        spa: Whether unknown paths give ``index.html``.
    """

    root: str = "."
    spa: bool = False


@frozen
class Manifest:
    """An agent's settings, typed.  Build it with `of`.

    Attributes:
        env: Name to default; None: the deployment must set it.
        timeout_seconds: Per task; None: the server's ``taskTimeout``.
        max_upload_bytes: None: the server's ``maxUploadBytes``, which is also the most that counts.
        rate_limit: Of each client; None: none.
        retries: How often a durable task may be run again that was begun and did not succeed.
        idle_seconds: Without traffic, after which it is stopped; None: never.
        user, capabilities: As given; whether they count is decided in `effective`.
        warnings: One line each, for whoever deploys.
    """

    image: str = DEFAULT_IMAGE
    about: str = ""
    kind: Kind = Kind.TASK
    install: str = ""
    update: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(factory=dict)
    run_task: str = ""
    engine: str = ""
    env: Mapping[str, str | None] = field(factory=dict)
    port: int | None = None
    health: Health = field(factory=Health)
    resources: Resources = field(factory=Resources)
    concurrency: int = 64
    timeout_seconds: float | None = None
    max_upload_bytes: int | None = None
    retries: int = 0
    wire: Wire = Wire.HTTP
    auth: CallAuth = CallAuth.NONE
    rate_limit: RateLimit | None = None
    replicas: int = 1
    idle_seconds: float | None = None
    volumes: tuple[Volume, ...] = ()
    static: StaticFiles | None = None
    schedule: tuple[Schedule, ...] = ()
    user: str = ""
    capabilities: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw_document: Mapping[str, Any], *, image_only: bool = False) -> Manifest:
        """Read a JSON object.

        Args:
            image_only: There is no code; then an agent is a service unless it says otherwise.

        Raises:
            ManifestInvalid: Every problem, by the field's path, with what was expected.
        """
        values, problems, unknown = _read(raw_document)
        if problems:
            said = "; ".join(f"{path}: {expected}" for path, expected in problems.items())
            raise ManifestInvalid(f"manifest.json: {said}", details=problems)
        kind = _kind(values, image_only)
        return cls(
            image=values.get("image") or values.get("container") or DEFAULT_IMAGE,
            about=" ".join(values.get("about", "").split())[:200],
            kind=kind,
            install=values.get("install", ""),
            update=values.get("update", ""),
            command=values.get("command", ()),
            entrypoint=values.get("entrypoint", ()),
            commands=values.get("commands", {}),
            run_task=values.get("runTask", ""),
            engine=values.get("engine", ""),
            env=values.get("env", {}),
            port=values.get("port"),
            health=_health(values.get("health", {}), kind),
            resources=Resources(**values.get("resources", {})),
            concurrency=values.get("concurrency", _CONCURRENCY[kind]),
            timeout_seconds=values.get("timeout"),
            max_upload_bytes=values.get("maxUploadBytes"),
            retries=values.get("retries", 0),
            wire=Wire(values.get("transport", "http")) if kind is Kind.TASK else Wire.HTTP,
            auth=CallAuth(values.get("auth", "none")),
            rate_limit=RateLimit(**values["rateLimit"]) if "rateLimit" in values else None,
            replicas=values.get("replicas", 1),
            idle_seconds=values.get("idle") or None,
            volumes=tuple(Volume(**volume) for volume in values.get("volumes", ())),
            static=StaticFiles(**values["static"]) if "static" in values else None,
            schedule=tuple(Schedule(**entry) for entry in values.get("schedule", ())),
            user=values.get("user", ""),
            capabilities=values.get("capabilities"),
            warnings=_warnings(values, unknown),
        )


def _read(
    raw_document: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    found = document(raw_document, FIELDS)
    problems = dict(found.problems)
    for one in ("name", "path"):
        seen: set[str] = set()
        for index, volume in enumerate(found.values.get("volumes", ())):
            if volume[one] in seen:
                problems[f"volumes[{index}].{one}"] = f"{volume[one]!r} is used by another volume"
            seen.add(volume[one])
    return found.values, problems, found.unknown


def _kind(values: Mapping[str, Any], image_only: bool) -> Kind:
    if "kind" in values:
        return Kind(values["kind"])
    if "static" in values:
        return Kind.STATIC
    return Kind.SERVICE if "port" in values or image_only else Kind.TASK


def _health(values: Mapping[str, Any], kind: Kind) -> Health:
    if kind is Kind.TASK:  # AgentCore answers there whatever the agent does
        values = {**values, "path": "/health"}
    return Health(
        path=values.get("path", "/"),
        interval_seconds=values.get("interval", Health().interval_seconds),
        timeout_seconds=values.get("timeout", Health().timeout_seconds),
        retries=values.get("retries", Health().retries),
        start_period_seconds=values.get("startPeriod", Health().start_period_seconds),
    )


def _warnings(values: Mapping[str, Any], unknown: tuple[str, ...]) -> tuple[str, ...]:
    warnings = [
        f"manifest.json: there is no field {name[:60]!r}{resembling(name, FIELDS)}; it is ignored"
        for name in unknown[:20]
    ]
    image, container = values.get("image"), values.get("container")
    if image and container and image != container:
        warnings.append(f"manifest.json: both image and container are given; {image} is taken")
    return tuple(warnings)


def check_settings(raw_settings: Mapping[str, Any]) -> None:
    """Check what a deployment wants in place of the manifest's own fields.

    Raises:
        ValidationFailed: Every problem, by the field's path.
    """
    _, problems, unknown = _read(raw_settings)
    for name in unknown:
        problems[name] = f"there is no such setting{resembling(name, FIELDS)}"
    if problems:
        raise ValidationFailed(problems)


@frozen
class Effective:
    """What a release is built with.

    Attributes:
        settings: Manifest and deployment merged, by manifest name, without `env`:
            `Manifest.of` gives `manifest` again.
        environment: Every variable with its value; may hold secrets.
        warnings: What the deployer should know.
    """

    settings: dict[str, Any]
    manifest: Manifest
    environment: dict[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()


def effective(
    raw_manifest: Mapping[str, Any],
    raw_settings: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    image: str = "",
    image_only: bool = False,
) -> Effective:
    """Merge a manifest with its deployment, which wins, and check the whole.

    Args:
        raw_settings: Has passed `check_settings`.
        environment: Variables that the deployment sets.
        image: The deployment's own, or ``""``.

    Raises:
        ManifestInvalid: The manifest alone does not fit.
        EnvironmentMissing: Naming every variable that is still without a value.
    """
    warnings = Manifest.of(raw_manifest, image_only=image_only).warnings
    merged = _merged(raw_manifest, raw_settings)
    if image:
        merged["image"] = image
    manifest = Manifest.of(merged, image_only=image_only)
    merged["kind"] = manifest.kind.value
    merged["image"] = manifest.image
    merged.pop("container", None)
    kept, told = _without_privileges(merged, raw_settings, manifest)
    variables = _variables(manifest.env, environment)
    kept.pop("env", None)
    vain = tuple(_NO_EFFECT.format(name) for name in _NOT_YET if kept.get(name))
    if manifest.schedule and manifest.kind is not Kind.TASK:
        vain += (f"schedule has no effect for a {manifest.kind.value}: it takes no commands",)
    if manifest.entrypoint and manifest.kind is not Kind.SERVICE:
        vain += (f"entrypoint has no effect for a {manifest.kind.value}: AgentCore runs it",)
    return Effective(kept, Manifest.of(kept), variables, warnings + told + vain)


def _merged(raw_manifest: Mapping[str, Any], raw_settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(raw_manifest)
    for name, value in raw_settings.items():
        below = merged.get(name)
        if name == "env":
            value, below = _as_table(value), _as_table(below)
        if name in _MERGED and isinstance(value, Mapping) and isinstance(below, Mapping):
            value = {**below, **value}
        merged[name] = value
    if "container" in raw_settings and "image" not in raw_settings:
        merged["image"] = raw_settings["container"]
    return {name: value for name, value in merged.items() if value is not None}


def _as_table(env: Any) -> Any:
    return dict.fromkeys(env) if isinstance(env, (list, tuple)) else env


def _without_privileges(
    merged: Mapping[str, Any], raw_settings: Mapping[str, Any], manifest: Manifest
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Keep of `user` and `capabilities` what the deployer asked for, or what grants nothing.

    A task agent runs as the server's own user without capabilities, whatever its manifest says.
    A service's manifest may choose among what the engine gives to any container.
    """
    kept, told = dict(merged), []
    asked = "a manifest alone does not grant it; give it in the deployment's own settings"
    if manifest.user and "user" not in raw_settings and manifest.kind is Kind.TASK:
        del kept["user"]
        told.append(f"user {manifest.user!r} is ignored: {asked}")
    if manifest.capabilities and "capabilities" not in raw_settings:
        given = GIVEN_CAPABILITIES if manifest.kind is Kind.SERVICE else frozenset()
        refused = sorted(set(manifest.capabilities) - given)
        if refused:
            kept["capabilities"] = [one for one in manifest.capabilities if one in given]
            told.append(f"capabilities {', '.join(refused)} are ignored: {asked}")
    return kept, tuple(told)


def _variables(env: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    values = {**env, **environment}
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        how = " ".join(f"--env {name}=value" for name in missing)
        raise EnvironmentMissing(
            f"the agent needs {', '.join(missing)}; set with {how}", details={"missing": missing}
        )
    return {name: value for name, value in values.items() if value is not None}


def check_environment(environment: Mapping[str, str]) -> None:
    """Check the variables that a deployment sets.

    Raises:
        ValidationFailed: A name is no variable's or is the server's own; no value is shown.
    """
    problems = {}
    for name, value in environment.items():
        path = f"environment.{name[:60]}"
        found = document({"env": {name: value}}, FIELDS)
        if name in SERVER_VARIABLES:
            problems[path] = "the server sets this one itself"
        elif found.problems or not isinstance(value, str):
            problems[path] = "expected a variable's name and text without NUL"
    if problems:
        raise ValidationFailed(problems)
