"""``config`` and `settings`: what the server runs by, and changing it while it runs."""

from __future__ import annotations

from typing import Annotated, Any, cast

import attrs
from attrs import Factory, frozen
from msgspec import Meta

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import structured
from ploinky.api.requests import Call
from ploinky.api.shapes import Success
from ploinky.configuration import AT_ONCE
from ploinky.errors import SettingsInvalid
from ploinky.settings import fields


def _form() -> type[Any]:
    """Make a form of what `ploinky.settings` knows: a setting is described in one place."""
    form: Any = attrs.make_class(
        "SettingsForm",
        {
            name: attrs.field(default=None, type=cast(Any, Annotated[Any, Meta(description=about)]))
            for _, name, about in fields()
        },
        frozen=True,
    )
    form.__doc__ = "New values by name; null leads back to the default."
    form.__module__ = __name__
    return cast(type[Any], form)


SettingsForm = _form()


@frozen
class Config:
    """What is in force, where it comes from, and what waits for the next start."""

    settings: dict[str, Any]
    origins: dict[str, str]
    waiting: dict[str, Any]
    directory: str


@frozen(kw_only=True)
class SettingsChanged(Success):
    """What became of the change.

    Attributes:
        overridden: Without effect as long as this variable or option wins.
    """

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    overridden: dict[str, str] = Factory(dict)


@frozen
class SettingsShown:
    """What is in force, and for each whether a change holds at once."""

    settings: dict[str, Any]
    at_once: list[str]
    revision: str


class SettingsRoutes:
    """No setting is a secret; should one be, it is masked here."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint("config", "GET", f"{API}/config", self._config, gives=Config),
            Endpoint("settings.show", "GET", f"{API}/settings", self._show, gives=SettingsShown),
            Endpoint(
                "settings.change",
                "POST",
                f"{API}/settings",
                self._change,
                takes=SettingsForm,
                gives=SettingsChanged,
                errors=(SettingsInvalid,),
                conditional=True,
            ),
        ]

    async def _config(self, call: Call) -> Answer:
        """Give the configuration in force, with the source of each value."""
        configuration = self._its.configuration
        directory = str(configuration.settings.directory)
        return as_json(
            Config(self._values(), configuration.origins(), configuration.waiting(), directory)
        )

    async def _show(self, call: Call) -> Answer:
        """Give the settings in force, with their version as ETag."""
        revision = self._its.configuration.revision()
        shown = SettingsShown(self._values(), sorted(AT_ONCE), revision)
        return as_json(shown, fields=(("ETag", f'"{revision}"'),))

    async def _change(self, call: Call) -> Answer:
        """Change settings; a value that does not fit changes nothing."""
        document = call.document()
        structured(SettingsForm, document)
        wanted = call.request.text_field("If-Match").strip('"')
        revision = "" if wanted == "*" else wanted
        made = await self._its.operations.begin(
            call.operation(", ".join(document)), self._its.change_settings(document, revision)
        )
        return as_json(
            SettingsChanged(
                applied=made.applied,
                needs_restart=made.needs_restart,
                overridden=dict(made.overridden),
            )
        )

    def _values(self) -> dict[str, Any]:
        values = attrs.asdict(self._its.configuration.settings, recurse=False)
        return {name: values[attribute] for attribute, name, _ in fields()}
