"""A service of Compose, as a deployment.

Source: the Compose Specification, *Services top-level elements* and *Deploy*.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from attrs import evolve, frozen

from ploinky.cli.imports import reasons
from ploinky.cli.imports.amounts import size_bytes, span_seconds
from ploinky.cli.imports.drafts import Draft, asked_over_http
from ploinky.cli.imports.extending import as_table
from ploinky.cli.imports.parts import Part
from ploinky.cli.imports.protocols import likely_port, not_http
from ploinky.cli.imports.variables import Files, Variables, read_variables

_PORT = re.compile(
    r"(?:(?:(?:[0-9.]+|\[[0-9a-fA-F:.]+\]):)?(?P<published>\d+(?:-\d+)?)?:)?"
    r"(?P<target>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>tcp|udp|sctp))?"
)
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_READY_SECONDS = 60.0
"""What a deployment waits for a healthy answer where nothing is said."""


@frozen
class Port:
    """A port that a container listens at.

    Attributes:
        published: On the host; ``""`` where it was not.
    """

    number: int
    is_tcp: bool
    published: str
    part: Part


@frozen
class Surroundings:
    """What a service reads beside its own lines.

    Attributes:
        variables: What a variable without a value takes its own from.
        shared: Named volumes that more than one service mounts.
    """

    files: Files
    variables: Variables
    shared: frozenset[str]


def why_not(part: Part) -> tuple[str, str] | None:
    """Tell why a service can be no deployment, and what to do; None where it can."""
    image = part.text("image")
    if not image:
        if part.take("build"):
            return reasons.BUILD
        part.fail("has neither image nor build")
    ports = [port.number for port in container_ports(part) if port.is_tcp]
    spoken = not_http(image, ports)
    if spoken:
        return (
            f"it speaks {spoken}, and a deployment serves HTTP",
            "run it beside the server, and give the others its address",
        )
    if container_ports(part) and not ports:
        return "it listens over UDP alone, and a deployment serves HTTP", "keep it where it runs"
    if part.part("deploy").number("replicas") == 0 or part.number("scale") == 0:
        return "it has no instances (replicas: 0)", ""
    return None


def container_ports(part: Part) -> list[Port]:
    """Give what a service listens at: its ``ports``, else what it exposes."""
    found = [port for entry in part.listed("ports") for port in _port(entry)]
    if found:
        part.ignore("expose")
        return found
    return [port for entry in part.listed("expose") for port in _port(entry)]


def draft(part: Part, wished_port: int | None, around: Surroundings) -> Draft:
    """Put a deployment together, and remark upon what does not map."""
    made = Draft(part, {"kind": "service"})
    made.put("image", part.text("image"), part.part("image"))
    if build := part.take("build"):
        build.remark("images are not built here: the image of the given name is taken", "push it")
    _put_port(made, wished_port)
    for name in ("entrypoint", "command"):
        if given := part.take(name):
            _put_words(made, name, given)
    _put_environment(made, around)
    _put_volumes(made, around.shared)
    _put_deploy(made)
    _put_limits(made)
    _put_health(made)
    _put_privileges(made)
    _note_restart(part)
    part.ignore("depends_on", "profiles", "init", "expose", "extends")
    part.rest(reasons.SERVICE)
    return made


def _port(entry: Part) -> list[Port]:
    if entry.is_mapping:
        target = entry.number("target")
        if target is None:
            entry.fail("expected a target")
        is_tcp = entry.text("protocol") in ("", "tcp")
        entry.ignore("mode", "host_ip", "name", "app_protocol")
        published = entry.text("published")
        entry.rest({})
        return [Port(target, is_tcp, published, entry)]
    found = _PORT.fullmatch(entry.words)
    if not found or int(found["last"] or found["target"]) - int(found["target"]) not in range(1000):
        entry.fail(f"expected a port such as 8080:80, got {entry.words!r}")
    numbers = range(int(found["target"]), int(found["last"] or found["target"]) + 1)
    is_tcp = found["protocol"] in (None, "tcp")
    return [Port(number, is_tcp, found["published"] or "", entry) for number in numbers]


def _put_port(made: Draft, wished: int | None) -> None:
    ports = container_ports(made.part)
    numbers = list(dict.fromkeys(port.number for port in ports if port.is_tcp))
    chosen = wished or likely_port(numbers)
    if chosen is None:
        made.part.note(
            "names no port: the one that its image declares is taken",
            "if the image declares none or several, name it: --port SERVICE=PORT",
        )
        return
    made.put("port", chosen, made.part)
    others = [str(number) for number in numbers if number != chosen]
    if others:
        made.part.part("ports").remark(
            f"a deployment serves one port, here {chosen}, and not {', '.join(others)}",
            "choose another one: --port SERVICE=PORT",
        )
    for port in ports:
        if not port.is_tcp:
            port.part.remark(f"port {port.number} is not TCP, and is not reached")
        elif port.number == chosen and port.published and not wished:
            port.part.note(f"is reached at its domain and path, not at port {port.published}")


def _put_words(made: Draft, name: str, given: Part) -> None:
    """Set what is run; a text is split as a shell would, and run by none."""
    try:
        words = (
            [one.words for one in given.entries()] if given.is_list else shlex.split(given.words)
        )
    except ValueError as error:
        given.fail(f"{error} in {given.words!r}")
    if words:
        made.put(name, words, given)
    else:
        given.remark(
            f"is empty here: the image's own {name} is run", f"give the {name} that is meant"
        )


def _put_environment(made: Draft, around: Surroundings) -> None:
    files = made.part.take("env_file")
    for entry in files.entries() if files else ():
        for name, text in _env_file(entry, around).items():
            made.variable(name, text, entry)
    given = made.part.take("environment")
    if given is None:
        return
    for name, value in evolve(given, node=as_table(given.node)).items():
        if value.node.value is not None:
            made.variable(name, value.words, value)
        elif (own := around.variables.take(name)) is not None:
            made.variable(name, own, value)
        else:
            value.note(
                f"{name} is not set here, and so is not set there", f"export {name}=VALUE first"
            )


def _env_file(entry: Part, around: Surroundings) -> dict[str, str]:
    path = entry.text("path") if entry.is_mapping else entry.words
    is_raw = entry.is_mapping and entry.text("format") == "raw"
    if entry.is_mapping and entry.flag("required") is False and not around.files.exists(path):
        return {}
    if entry.is_mapping:
        entry.rest({})
    text, shown = around.files.text(path, entry)
    return read_variables(text, shown, around.variables.known, is_raw=is_raw)


def _put_volumes(made: Draft, shared: frozenset[str]) -> None:
    for entry in made.part.listed("volumes"):
        source, target, is_bind = volume_of(entry)
        if is_bind:
            entry.remark(*reasons.BIND_MOUNT)
        elif not source:
            entry.remark(*reasons.ANONYMOUS_VOLUME)
        else:
            made.volume(source, target, entry)
            if source in shared:
                entry.note(f"{source} is shared there; here each deployment has its own")
            else:
                entry.note(f"{source} begins empty: what is in it there is not copied")


def volume_of(entry: Part) -> tuple[str, str, bool]:
    """Read a mount: source (``""``: none), target, and whether it is none of the engine's volumes."""
    if entry.is_mapping:
        kind = entry.text("type") or "volume"
        source, target = entry.text("source") or entry.text("src"), entry.text("target")
        if kind == "volume" and (entry.flag("read_only") or entry.take("volume")):
            entry.note("is mounted as a whole, to read and to write")
        return source, target.rstrip("/") or "/", kind != "volume"
    pieces = entry.words.split(":")
    if len(pieces) == 1:
        return "", pieces[0], False
    source, target = pieces[0], pieces[1].rstrip("/") or "/"
    is_named = bool(_VOLUME_NAME.fullmatch(source))
    if is_named and "ro" in pieces[2:]:
        entry.note("can be written to as well")
    return source, target, not is_named


def _put_deploy(made: Draft) -> None:
    deploy = made.part.part("deploy")
    scale, replicas = made.part.number("scale"), deploy.number("replicas")
    if (wanted := replicas if replicas is not None else scale) is not None:
        made.put("replicas", wanted, deploy)
    mode = deploy.take("mode")
    if mode and mode.words not in ("replicated", "global"):
        mode.remark("what ends by itself is not deployed: this is started again when it ends")
    limits = deploy.part("resources")
    limits.rest({"reservations": reasons.SERVICE["mem_reservation"]} if _given(limits) else {})
    deploy.rest(reasons.DEPLOY)


def _given(resources: Part) -> bool:
    resources.ignore("limits")
    return bool(resources.names)


def _put_limits(made: Draft) -> None:
    limits = made.part.part("deploy").part("resources").part("limits")
    memory = limits.take("memory") or made.part.take("mem_limit")
    cpus = limits.take("cpus") or made.part.take("cpus")
    pids = limits.take("pids") or made.part.take("pids_limit")
    made.part.ignore("mem_limit", "cpus", "pids_limit")
    if memory:
        size = size_bytes(memory.words)
        if size is None:
            memory.fail(f"expected a size such as 256m, got {memory.words!r}")
        made.resources(memory=size or None)
    if cpus:
        if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", cpus.words):
            cpus.fail(f"expected a number of cores such as 0.5, got {cpus.words!r}")
        made.resources(cpus=float(cpus.words) or None)
    if pids and pids.words != "-1":
        made.resources(pids=pids.whole or None)
    limits.rest({})


def _put_health(made: Draft) -> None:
    check = made.part.take("healthcheck")
    if check is None:
        return
    test = check.take("test")
    words = [one.words for one in test.entries()] if test else []
    if check.flag("disable") or words == ["NONE"]:
        check.remark(
            "a deployment is always asked whether it is healthy", "see health in the deployment"
        )
        check.ignore(*check.names)
        return
    health: dict[str, Any] = {}
    if test and words:
        _put_question(made, health, test, words)
    for name, ours in (("interval", "interval"), ("timeout", "timeout")):
        if given := check.take(name):
            health[ours] = _seconds(given)
    retries = check.number("retries")
    if retries:
        health["retries"] = retries
    if start := check.take("start_period"):
        patience = _seconds(start) + (retries or 3) * health.get("interval", 30.0)
        health["startPeriod"] = max(_READY_SECONDS, patience)
    check.rest({"start_interval": ("an instance that starts is asked at once, and often", "")})
    if health:
        made.put("health", health, check)


def _put_question(made: Draft, health: dict[str, Any], test: Part, words: list[str]) -> None:
    asked = asked_over_http(" ".join(words[1:] if words[0] in ("CMD", "CMD-SHELL") else words))
    if asked is None:
        test.remark(
            "commands are not run for health: GET / is asked, and has to give 2xx or 3xx",
            "set health.path in the deployment",
        )
    elif asked[0] == "https" or asked[1] != made.body.get("port", asked[1]):
        test.remark(f"asks {asked[0]} at port {asked[1]}, which is not the deployment's")
    else:
        health["path"] = asked[2]


def _seconds(part: Part) -> float:
    found = span_seconds(part.words)
    if found is None:
        part.fail(f"expected a duration such as 30s or 1m30s, got {part.words!r}")
    return found


def _put_privileges(made: Draft) -> None:
    part = made.part
    if user := part.take("user"):
        made.put("user", user.words, user)
    add, drop = part.listed("cap_add"), part.listed("cap_drop")
    if add or drop:
        first = (add or drop)[0]
        made.capabilities([one.words for one in add], [one.words for one in drop], first)


def _note_restart(part: Part) -> None:
    restart = part.take("restart")
    if restart and restart.words.lower() not in ("always", "unless-stopped"):
        restart.note("what ends is started again here, however it ends")
