"""What a config would change, in which order, and what doesn't fit: as tables, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.config import LocalModel, RemoteModel
from appliance.engines import capacity
from appliance.engines.capacity import Memory, Need
from appliance.engines.command import Spec
from appliance.engines.planning import Model, Plan, Step, plan
from appliance.engines.specs import candidate
from appliance.errors import DoesNotFit
from tests.engines.test_engine import CARD

ROOM = 10.0


def model(card: str, gib: float = 4, *, can_sleep: bool = False, **settings: Any) -> Model:
    """A model of so many GiB."""
    wanted = LocalModel.model_validate({"card": card} | settings)
    spec = Spec("chat", CARD, wanted, Path(card), Path("python"), "cpu", f"{card}-fingerprint")
    return Model(spec, Need({"engine": gib}), can_sleep=can_sleep)


def endpoint(url: str = "https://gpu2.house.test/v1") -> Model:
    return Model(RemoteModel.model_validate({"endpoint": url}))


def objection(needs: Mapping[str, Need]) -> str | None:
    together = sum(need.gib for need in needs.values())
    return None if together <= ROOM else f"{together:g} GiB are over {ROOM:g}"


def planned(standing: dict[str, Model], wanted: dict[str, Model], **more: Any) -> Plan:
    return plan(standing, wanted, objection, **more)


def acts(made: Plan) -> list[tuple[str, str, str | None, str | None]]:
    """The steps that change something, without their words; versions by card."""

    def card(version: str | None) -> str | None:
        return version and version.partition("@")[0]

    return [(step.name, step.action, card(step.old), card(step.new)) for step in made.steps if step.action != "keep"]


CASES: list[tuple[str, dict[str, Model], dict[str, Model], list[tuple[str, str, str | None, str | None]]]] = [
    ("nothing changes", {"chat": model("a")}, {"chat": model("a")}, []),
    (
        "what an engine isn't restarted for",
        {"chat": model("a")},
        {"chat": model("a", wait_seconds=1)},
        [("chat", "settings", "a", "a")],
    ),
    (
        "what it is restarted for",
        {"chat": model("a")},
        {"chat": model("a", context_length=64)},
        [("chat", "beside", "a", "a")],
    ),
    ("a new model", {"chat": model("a")}, {"chat": model("a"), "more": model("b")}, [("more", "start", None, "b")]),
    ("a model less", {"chat": model("a"), "more": model("b")}, {"chat": model("a")}, [("more", "stop", "b", None)]),
    ("room for both", {"chat": model("a", 4)}, {"chat": model("b", 6)}, [("chat", "beside", "a", "b")]),
    ("no room for both", {"chat": model("a", 5)}, {"chat": model("b", 6)}, [("chat", "replace", "a", "b")]),
    (
        "told to replace",
        {"chat": model("a", 1)},
        {"chat": model("b", 1, swap="replace")},
        [("chat", "replace", "a", "b")],
    ),
    (
        "no room, and it can sleep",
        {"chat": model("a", 5, can_sleep=True)},
        {"chat": model("b", 6)},
        [("chat", "sleep", "a", "b")],
    ),
    (
        "told to sleep",
        {"chat": model("a", 1, can_sleep=True)},
        {"chat": model("b", 1, swap="sleep")},
        [("chat", "sleep", "a", "b")],
    ),
    (
        "told to sleep, and can't",
        {"chat": model("a", 1)},
        {"chat": model("b", 1, swap="sleep")},
        [("chat", "replace", "a", "b")],
    ),
    (
        "what goes anyway makes room first",
        {"chat": model("a", 4), "more": model("c", 5)},
        {"chat": model("b", 5)},
        [("more", "stop", "c", None), ("chat", "beside", "a", "b")],
    ),
    (
        "of two the larger makes room, and the smaller isn't held up",
        {"chat": model("a", 4), "more": model("c", 2)},
        {"chat": model("b", 4), "more": model("d", 2)},
        [("chat", "replace", "a", "b"), ("more", "beside", "c", "d")],
    ),
    (
        "one grows where the other shrinks",
        {"chat": model("a", 7), "more": model("c", 3)},
        {"chat": model("b", 3), "more": model("d", 7)},
        [("chat", "replace", "a", "b"), ("more", "replace", "c", "d")],
    ),
    (
        "a candidate",
        {"chat": model("a")},
        {"chat": model("a"), candidate("chat"): model("b")},
        [("chat", "rollout", None, "b")],
    ),
    (
        "one is tried no more",
        {"chat": model("a"), candidate("chat"): model("b")},
        {"chat": model("a")},
        [("chat", "drop", "b", None)],
    ),
    (
        "the one tried takes over without a start",
        {"chat": model("a", 5), candidate("chat"): model("b", 5)},
        {"chat": model("b", 5)},
        [("chat", "beside", "a", "b"), ("chat", "drop", "b", None)],
    ),
    ("an endpoint stays", {"far": endpoint()}, {"far": endpoint()}, []),
    ("an endpoint becomes an engine", {"chat": endpoint()}, {"chat": model("a", 10)}, [("chat", "beside", None, "a")]),
    ("too much stands already, and nothing starts", {"chat": model("a", 20)}, {"chat": model("a", 20)}, []),
]


@pytest.mark.parametrize(
    ("standing", "wanted", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_a_config_would_change(
    standing: dict[str, Model], wanted: dict[str, Model], expected: list[tuple[str, str, str | None, str | None]]
) -> None:
    found = acts(planned(standing, wanted))
    assert [(name, act, old if old != "endpoint" else None, new) for name, act, old, new in found] == expected


@pytest.mark.parametrize(
    ("standing", "wanted", "words"),
    [
        (
            {"chat": model("a", 5)},
            {"chat": model("b", 11)},
            "also without a@a-finger, which frees 5.0 GiB: 11 GiB are over 10",
        ),
        ({}, {"chat": model("a", 11)}, "not enough memory: 11 GiB are over 10. Take a smaller card"),
        ({"chat": model("a", 5)}, {"chat": model("b", 6, swap="beside")}, "`swap: beside` keeps chat from making room"),
        ({"chat": model("a", 8)}, {"chat": model("a", 8), candidate("chat"): model("b", 4)}, "12 GiB are over 10"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    standing: dict[str, Model], wanted: dict[str, Model], words: str
) -> None:
    with pytest.raises(DoesNotFit) as refused:
        planned(standing, wanted)
    assert words in str(refused.value)


def test_what_runs_beside_the_names_counts() -> None:
    standing, wanted = {"chat": model("a", 4)}, {"chat": model("b", 4)}
    assert planned(standing, wanted).steps[0].action == "beside"
    others = {"trial/c": Need({"engine": 4})}
    assert planned(standing, wanted, others=others).early == {"chat": "replace"}


def test_a_step_says_what_is_needed_and_why() -> None:
    made = planned({"chat": model("a", 5)}, {"chat": model("b", 6)})
    assert made.steps == (
        Step(
            "chat", "replace", "a@a-finger", "b@b-finger", 6,
            "it needs 6.0 GiB, and there is no room for that while a@a-finger runs; requests wait meanwhile",
        ),
    )  # fmt: skip
    assert not made.idle
    assert planned({"chat": model("a")}, {"chat": model("a")}).idle


def test_models_that_may_idle_make_room_for_a_change_but_not_those_that_it_is_about() -> None:
    def idles(card: str, gib: float) -> Model:
        found = model(card, gib)
        assert found.need is not None
        return replace(found, need=replace(found.need, may_idle=True))

    def serves(needs: Mapping[str, Need]) -> str | None:
        return capacity.objection(needs, Memory(10, 10))

    standing = {"chat": idles("a", 6), "other": idles("o", 6)}

    def actions(wanted: Mapping[str, Model]) -> dict[str, str]:
        return {step.name: step.action for step in plan(standing, wanted, serves).steps}

    assert actions(standing | {"chat": idles("b", 6)}) == {"chat": "replace", "other": "keep"}, "never both at once"
    assert actions(standing | {"chat": idles("b", 4)}) == {"chat": "beside", "other": "keep"}, "the other leaves"
    with pytest.raises(DoesNotFit):
        plan(standing, standing | {"always": model("c", 5)}, serves)


def test_what_is_to_take_more_from_now_on_has_to_fit_as_well() -> None:
    with pytest.raises(DoesNotFit, match="900 GiB are over 10"):
        planned({"chat": model("a")}, {"chat": model("a", 900)})
    # what grew too big by itself keeps nobody from changing something else
    assert acts(planned({"chat": model("a", 12)}, {"chat": model("a", 12, wait_seconds=1)}))
    assert planned({"chat": model("a", 12)}, {"chat": model("a", 11)}).idle


def test_a_model_for_something_else_is_pointed_out() -> None:
    vectors = model("b")
    assert isinstance(vectors.what, Spec)
    other = replace(vectors.what, card=CARD.model_copy(update={"task": "embedding"}))
    (step,) = planned({"chat": model("a")}, {"chat": replace(vectors, what=other)}).steps
    assert step.why.endswith("whoever asks this name for chat is refused from then on")
