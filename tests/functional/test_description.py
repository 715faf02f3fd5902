"""The API's description against a real server: generated requests, and nothing that it does not foresee."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.functional.conftest import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without deployments, whose state the requests may change as they like."""
    server = Server(tmp_path_factory.mktemp("described"), "process", workers=1)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


EXAMPLES = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_is_answered_as_described(described: Server, mode: GenerationMode) -> None:
    """No 5xx, no status, type or field that is not in the description; what does not fit is 4xx."""
    place = f"{described.url}/management/api/openapi.json"
    found: list[str] = []
    schema = schemathesis.openapi.from_url(place)
    schema.config.generation.update(with_security_parameters=False)  # the key is what counts
    for one in schema.get_all_operations():
        operation = one.ok()
        if operation.path.endswith("/events"):
            continue  # it goes on for ever; other tests listen to it

        @EXAMPLES
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered_as_described(case):  # type: ignore[no-untyped-def]
            if str(case.query.get("follow")).lower() in ("true", "1", "yes"):
                case.query["follow"] = "false"  # that, too, would go on for ever
            case.call_and_validate(headers={"X-API-Key": described.key}, checks=CHECKS)

        try:
            answered_as_described()
        except Unsatisfiable:
            pass  # nothing can be wrong with what takes nothing
        except Exception as error:
            found.append(f"{operation.label}: {error}")
    assert not found, "\n\n".join(found)
