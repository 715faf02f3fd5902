"""What every worker should route by, whatever was posted, withdrawn and noticed before."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from ploinky.deployment.board import RouteBoard
from ploinky.values import Address, DeploymentKey, Kind, Route, Target

CONTROL = Route(DeploymentKey("*", "/management"), Kind.CONTROL)


class Reached:
    """Says where instances are reached now: where they were posted."""

    def target(self, instance: str) -> Target | None:
        return None


def board() -> Any:
    return RouteBoard(None, Reached(), [CONTROL])  # type: ignore[arg-type]


def post(number: int, *instances: str, release: int = 1) -> Route:
    targets = tuple(Target(one, Address(path=f"/run/{one}")) for one in instances)
    key = DeploymentKey(("a.example", "b.example")[number % 2], f"/d{number}")
    return Route(key, Kind.TASK, f"d{number}", release, targets)


@given(st.data())
def test_the_table_is_what_a_board_would_give_that_was_told_only_the_outcome(
    data: st.DataObject,
) -> None:
    """Whatever came before, in whichever order, and whenever the table was looked at."""
    old, posts, unwell = board(), dict[str, Route](), set[str]()
    disabled: frozenset[str] = frozenset()
    for _ in range(data.draw(st.integers(5, 20))):
        number = data.draw(st.integers(0, 3))
        instance = f"i{number}{data.draw(st.sampled_from('xy'))}"
        match data.draw(st.sampled_from(["post", "withdraw", "unwell", "well", "hide"])):
            case "post":
                some = data.draw(st.lists(st.sampled_from("xy"), unique=True))
                route = post(number, *(f"i{number}{one}" for one in some))
                posts[route.deployment] = route
                old.post(route)
            case "withdraw":
                posts.pop(f"d{number}", None)
                old.withdraw(f"d{number}")
            case "unwell":
                unwell.add(instance)
                old.noticed(instance, False)
            case "well":
                unwell.discard(instance)
                old.noticed(instance, True)
            case _:
                disabled = frozenset(data.draw(st.sets(st.sampled_from(["a.example", "c"]))))
                old.disable(disabled)
        if data.draw(st.booleans()):
            old.routes()
    new = board()
    new.disable(disabled)
    for instance in unwell:
        new.noticed(instance, False)
    for route in posts.values():
        new.post(route)
    assert set(old.routes()) == set(new.routes())
    assert len(old.routes()) == 1 + len(posts)


def test_what_has_not_changed_is_the_same_object_in_the_next_table() -> None:
    """So that nobody looks into 10,000 routes to see which one differs."""
    its = board()
    for number in range(3):
        its.post(post(number, f"i{number}"))
    its.noticed("i2", False)
    before = its.routes()
    assert its.noticed("i1", False) == post(1).key
    its.post(attrs.evolve(post(3, "i3")))
    after = its.routes()
    assert [route for route in after if not any(route is one for one in before)] == [
        route for route in after if route.deployment in ("d1", "d3")
    ]


def test_news_of_an_instance_that_nothing_leads_to_changes_nothing_now() -> None:
    """It counts as soon as it is posted; an external target has no news."""
    its = board()
    its.post(
        Route(
            DeploymentKey("a.example", "/out"),
            Kind.EXTERNAL,
            "out",
            targets=(Target("", Address(host="h", port=1)),),
        )
    )
    assert its.noticed("i0", False) is None
    assert its.noticed("", False) is None
    its.post(post(0, "i0"))
    (route,) = (route for route in its.routes() if route.deployment == "d0")
    assert route.targets == ()
    its.forget("i0")
    (route,) = (route for route in its.routes() if route.deployment == "d0")
    assert len(route.targets) == 1
