"""What follows from a request's head alone, under one generation of the route table."""

from __future__ import annotations

from enum import Enum

from attrs import Factory, field, frozen

from ploinky.routing.access import Subject
from ploinky.routing.forms import TaskForm
from ploinky.routing.static import Asked
from ploinky.routing.uploads import UploadForm
from ploinky.values import Principal, Route


class Attempt(Enum):
    """What a request tries to be let in by; the value is the route's name in the audit trail."""

    LOGIN = "auth"
    PUSH = "hooks.push"


@frozen
class Plan:
    """Where a request goes, and as what.

    Attributes:
        subject: What its record says of it.
        form: How a task is called; None for what is no task.
        forwarded: The head that an agent gets, up to its request id; ``b""`` where it gets none.
        upload: How a task brings its files; None where it brings none.
        asked: What is wanted of a static deployment; None for any other.
        most_body_bytes: None: no limit.
        upgrade: The protocols that it asks the agent for; ``b""`` for none.
        attempt: To be let in, of which there is a limit; None for what needs no such thing.
        may_stream: Whether an answer that has begun may last for as long as it likes.
    """

    route: Route
    principal: Principal
    subject: Subject
    form: TaskForm | None = None
    forwarded: bytes = b""
    upload: UploadForm | None = None
    asked: Asked | None = None
    most_body_bytes: int | None = None
    upgrade: bytes = b""
    attempt: Attempt | None = None
    may_stream: bool = field(
        init=False, default=Factory(lambda self: self.form is None or self.form.to_events, True)
    )

    @property
    def travels_whole(self) -> bool:
        """Whether its body is read before anything is made of it."""
        return self.form is not None or self.attempt is Attempt.LOGIN
