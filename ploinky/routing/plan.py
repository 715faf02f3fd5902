"""What follows from a request's head alone, under one generation of the route table."""

from __future__ import annotations

from attrs import field, frozen

from ploinky.routing.access import Subject
from ploinky.routing.forms import TaskForm
from ploinky.values import Principal, Route


@frozen
class Plan:
    """Where a request goes, and as what.

    Attributes:
        subject: What its record says of it.
        form: How a task is called; None for what is passed through.
        forwarded: The head that an agent gets, up to its request id; ``b""`` for tasks.
    """

    route: Route
    principal: Principal
    subject: Subject
    form: TaskForm | None = field(default=None, kw_only=True)
    forwarded: bytes = field(default=b"", kw_only=True)
