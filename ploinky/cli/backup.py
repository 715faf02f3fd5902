"""``p-cli cloud backup`` and `restore`: a server in one file, and a server out of it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ploinky.backup import MAGIC
from ploinky.cli import output
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.offline import run_offline
from ploinky.cli.server import directory_option
from ploinky.cli.shared import client, json_option

VARIABLE = "PLOINKY_BACKUP_PASSPHRASE"

_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Holds the passphrase, in its first line  [or {VARIABLE}; else it is asked for].",
)


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@_passphrase_option
@click.option("--plain", is_flag=True, help="Not sealed, and without the master key.")
@click.option("--no-volumes", is_flag=True, help="Leave volumes out.")
@click.option("--force", is_flag=True, help="Write over FILE where it exists.")
@click.option("--offline", is_flag=True, help="Read the data directory; no server runs on it.")
@directory_option
@json_option
def backup(
    file: Path | None,
    passphrase_file: Path | None,
    plain: bool,
    no_volumes: bool,
    force: bool,
    offline: bool,
    directory: Path,
    want_json: bool,
) -> None:
    """Write all that the server is to FILE, while it serves.

    State, secrets, code and volumes, sealed under a passphrase: whoever has both can restore it
    on an empty machine.  FILE appears once it is whole and was read again to its end.

    With --plain whoever has FILE can read it.  What is secret stays sealed with the master key,
    which is not in it: keep that (master.key in the data directory) in another place.
    """
    if plain and passphrase_file is not None:
        raise CommandFailed(
            "--plain takes no passphrase", hint="leave one of them out", exit_code=CONFIGURATION
        )
    place = file or Path(
        time.strftime("ploinky-%Y%m%d-%H%M%S") + (".tar.gz" if plain else ".backup")
    )
    if place.exists() and not force:
        raise CommandFailed(f"{place} is there already", hint="name another file, or use --force")
    passphrase = "" if plain else _passphrase(passphrase_file, confirm=True)
    with _whole(place) as scratch:
        if offline:
            volumes = not no_volumes
            run_offline(
                "backup", directory, file=str(scratch), passphrase=passphrase, volumes=volumes
            )
        else:
            _fetch(scratch, {"passphrase": passphrase, "volumes": not no_volumes})
        found = run_offline("check-backup", directory, file=str(scratch), passphrase=passphrase)
    _tell_problems(found)
    if want_json:
        output.as_json({"file": str(place), "bytes": place.stat().st_size, **found})
        return
    click.echo(f"{place}: {_counted(found)}, {place.stat().st_size} bytes, checked.")
    if not found["masterKey"]:
        click.echo(
            "The master key is not in it.  To restore, you need it as well: keep master.key of the"
            " data directory, or what PLOINKY_MASTER_KEY holds, in another place.",
            err=True,
        )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_passphrase_option
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds the master key, where FILE does not  [or PLOINKY_MASTER_KEY].",
)
@click.option("--replace", is_flag=True, help="Move aside what is in the directory.")
@click.option(
    "--take-over",
    is_flag=True,
    help="The old server is gone and this is its machine: end the containers that it left.",
)
@click.option("--stopped", is_flag=True, help="Let the first start start no deployment.")
@click.option("--check", is_flag=True, help="Only read FILE to its end, and say what is in it.")
@directory_option
@json_option
def restore(
    file: Path,
    passphrase_file: Path | None,
    key_file: Path | None,
    replace: bool,
    take_over: bool,
    stopped: bool,
    check: bool,
    directory: Path,
    want_json: bool,
) -> None:
    """Make a server of the backup FILE; then start it with p-cli cloud start.

    The directory must be empty, or is moved aside with --replace.  A FILE that is damaged or cut
    off changes nothing.  The first start brings every deployment back: it gets images, fills
    volumes, and starts what ran.
    """
    passphrase = _passphrase(passphrase_file, confirm=False) if _is_sealed(file) else ""
    how: dict[str, Any] = {"file": str(file.absolute()), "passphrase": passphrase}
    if check:
        found = run_offline("check-backup", directory, **how)
    else:
        how |= {"replace": replace, "take_over": take_over, "stopped": stopped}
        how["key_file"] = str(key_file.absolute()) if key_file else ""
        found = run_offline("restore", directory, **how)
    _tell_problems(found)
    if want_json:
        output.as_json(found)
        return
    made = f"made {found['createdAt']} by version {found['version']}"
    if check:
        click.echo(f"{file} is whole: {_counted(found)}, {made}.")
        for each in found["deployments"]:
            click.echo(f"  {each['domain']}{each['path']}")
        return
    click.echo(f"Restored to {found['directory']}: {_counted(found)}, {made}.")
    if found["movedTo"]:
        click.echo(f"What was there before is in {found['movedTo']}")
    click.echo(f"Start it: p-cli cloud start --dir {directory}")


def _passphrase(path: Path | None, *, confirm: bool) -> str:
    """Find the passphrase; it never comes from the command line, which everybody can see."""
    if path is not None:
        try:
            found, source = path.read_text(encoding="utf-8").partition("\n")[0], str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(
                f"{path} cannot be read: {error}", exit_code=CONFIGURATION
            ) from error
    elif os.environ.get(VARIABLE):
        found, source = os.environ[VARIABLE], VARIABLE
    elif sys.stdin.isatty():
        found = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
        source = "the passphrase"
    else:
        raise CommandFailed(
            "no passphrase to seal the backup under" if confirm else "the backup is sealed",
            hint=f"set {VARIABLE}, or name a file with --passphrase-file"
            + ("; or --plain, without the master key" if confirm else ""),
            exit_code=CONFIGURATION,
        )
    if not found:
        raise CommandFailed(f"{source} is empty", exit_code=CONFIGURATION)
    return found


def _is_sealed(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from error


@contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """Give a file beside ``place``, 0600, that takes its name if nothing goes wrong."""
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{place.name}.", suffix=".part", dir=place.absolute().parent
        )
    except OSError as error:
        raise CommandFailed(
            f"{place} cannot be written: {error.strerror}", exit_code=CONFIGURATION
        ) from error
    scratch = Path(name)
    try:
        yield scratch
        os.fsync(descriptor)
        scratch.replace(place)
    finally:
        os.close(descriptor)
        scratch.unlink(missing_ok=True)


def _fetch(scratch: Path, body: dict[str, Any]) -> None:
    try:
        with scratch.open("wb") as file:
            for piece in client().stream("backup", body):
                file.write(piece)
    except OSError as error:
        raise CommandFailed(f"{scratch.parent} cannot be written to: {error.strerror}") from error


def _tell_problems(found: dict[str, Any]) -> None:
    for problem in found["problems"]:
        click.echo(f"Warning: {problem}", err=True)


def _counted(found: dict[str, Any]) -> str:
    count = len(found["deployments"])
    return f"{count} deployment{'' if count == 1 else 's'}"


COMMANDS = (backup, restore)
