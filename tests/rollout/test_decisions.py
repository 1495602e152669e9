"""What was decided is on disk, and holds for that very rollout alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.config import LocalModel, Rollout, Settings
from appliance.errors import ConfigInvalid
from appliance.rollout.decisions import Decision, Decisions, digest, effective, standing


def settings(card: str = "one", **rollout: Any) -> Settings:
    tried = {"card": "two", "percent": 10, **rollout} if rollout is not None else None
    return Settings.model_validate(
        {"models": {"chat": {"card": card, "rollout": tried}, "far": {"endpoint": "unix:/x"}}}
    )


def chat(of: Settings) -> LocalModel:
    model = of.models["chat"]
    assert isinstance(model, LocalModel)
    return model


def decided(what: Any, of: Settings, percent: float | None = None) -> dict[str, Decision]:
    return {"chat": Decision(standing(of)["chat"], what, "rule", "as it is", 1.5, percent)}


def test_what_is_promoted_serves_alone_what_is_dropped_is_gone_and_a_weight_is_taken() -> None:
    plain = settings()
    promoted = chat(effective(plain, decided("promoted", plain)))
    assert (promoted.card, promoted.rollout) == ("two", None)
    dropped = chat(effective(plain, decided("dropped", plain)))
    assert (dropped.card, dropped.rollout) == ("one", None)
    weighed = chat(effective(plain, decided("weight", plain, 25)))
    assert weighed.rollout is not None
    assert (weighed.card, weighed.rollout.percent) == ("one", 25)
    assert chat(plain).rollout is not None, "and the config itself is as it was"


@pytest.mark.parametrize(
    "edited",
    [settings("three"), settings(card="one", percent=11), settings(mode="ab"), settings(bounds={"token_times": 2})],
)
def test_an_edited_rollout_is_another_one(edited: Settings) -> None:
    assert effective(edited, decided("promoted", settings())) == edited


def test_a_later_appliance_with_one_setting_more_knows_what_was_decided() -> None:
    class Later(Rollout):
        more: int = 1

    now = settings()
    model = chat(now)
    assert model.rollout is not None
    later = model.model_copy(update={"rollout": Later(**model.rollout.model_dump())})
    assert digest("chat", later) == digest("chat", model)


def test_what_was_decided_of_what_is_no_more_says_nothing() -> None:
    plain = Settings.model_validate({"models": {"chat": {"card": "one"}}})
    assert effective(plain, decided("promoted", settings())) == plain
    assert effective(settings(), {"gone": decided("promoted", settings())["chat"]}) == settings()


def test_other_settings_of_the_model_leave_a_decision_as_it_is() -> None:
    edited = Settings.model_validate(
        {"models": {"chat": {"card": "one", "rollout": {"card": "two", "percent": 10}, "stall_seconds": 7}}}
    )
    after = chat(effective(edited, decided("promoted", settings())))
    assert (after.card, after.stall_seconds) == ("two", 7)


def test_it_is_there_after_a_start_and_gone_when_the_rollout_is(tmp_path: Path) -> None:
    (decision,) = decided("weight", settings(), 12.5).values()
    Decisions(tmp_path).decide("chat", decision)
    again = Decisions(tmp_path)
    assert again.known == {"chat": decision}
    again.prune([decision.of])
    assert Decisions(tmp_path).known == {"chat": decision}
    again.prune(["another"])
    assert again.known == Decisions(tmp_path).known == {}


def test_what_is_undone_was_never_decided(tmp_path: Path) -> None:
    first, second = (decided(what, settings())["chat"] for what in ("weight", "promoted"))
    known = Decisions(tmp_path)
    known.decide("chat", first)
    known.decide("chat", second)
    known.undo("chat", first)
    assert Decisions(tmp_path).known == {"chat": first}
    known.undo("chat", None)
    assert Decisions(tmp_path).known == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"chat": 1}', b'{"chat": {"of": "x", "what": "eaten", "by": "", "why": "", "at": 1}}',
     b'{"chat": {"of": "x", "what": "weight", "by": "", "why": "", "at": 1, "percent": 101}}'],
)  # fmt: skip
def test_a_file_that_cant_be_read_keeps_the_appliance_from_starting(tmp_path: Path, content: bytes) -> None:
    """Else what was dropped would serve again, and nobody would know."""
    (tmp_path / "rollouts.json").write_bytes(content)
    with pytest.raises(ConfigInvalid, match="Restore it from a backup, or remove it"):
        Decisions(tmp_path)


def test_what_cant_be_written_was_not_decided(tmp_path: Path) -> None:
    known = Decisions(tmp_path)
    (tmp_path / "rollouts.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        known.decide("chat", decided("promoted", settings())["chat"])
    assert known.known == {}
