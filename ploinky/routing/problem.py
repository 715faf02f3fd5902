"""An error of the management API as an answer: the same from the leader and from a worker.

Form: ``{"error": "<message>", "message", "code", "details"?, "requestId"}`` (contract, section 5).
"""

from __future__ import annotations

from typing import Any

from ploinky.errors import CallFailed, MethodNotAllowed, PloinkyError, Unauthenticated

EVERY_ANSWERS_FIELDS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


def document_of(error: PloinkyError, request_id: str) -> dict[str, Any]:
    """Give the answer's body, but for its details."""
    return {
        "error": error.message,
        "message": error.message,
        "code": error.code,
        "requestId": request_id,
    }


def fields_of(error: PloinkyError) -> tuple[tuple[str, str], ...]:
    """Give the fields that its kind brings."""
    fields: list[tuple[str, str]] = []
    if isinstance(error, MethodNotAllowed):
        fields.append(("Allow", ", ".join(error.allow)))
    if isinstance(error, Unauthenticated):
        fields.append(("WWW-Authenticate", 'Bearer realm="ploinky"'))
    if isinstance(error, CallFailed) and error.retry_after_seconds is not None:
        fields.append(("Retry-After", str(error.retry_after_seconds)))
    return tuple(fields)
