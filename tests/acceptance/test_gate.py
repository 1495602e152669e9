"""A new engine takes over only when it answers as its card says; what fails is told in plain words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.acceptance import Acceptance
from appliance.acceptance.records import Records
from appliance.errors import NotAccepted
from tests.acceptance.conftest import Ready
from tests.fakes.house import House

Kept = Callable[[], list[Path]]
TWO = {"languages": ["en", "de"]}


async def test_a_right_model_passes_and_what_it_said_is_kept(acceptance: Acceptance, ready: Ready, kept: Kept) -> None:
    told: list[str] = []
    await acceptance.accept(await ready("right", **TWO), None, told.append)
    checks = ["smoke prompt", "no rubbish", "answers with a fixed seed", "golden set", "speed"]
    assert told[:5] == [f"chat: gate: {check}" for check in checks]
    result = acceptance.results["chat"]
    assert (result.passed, result.failed) == (True, None)
    assert result.figures["nats_english"] == result.figures["nats_german"] == pytest.approx(3)
    assert result.version.startswith("right@")
    (file,) = kept()
    record = json.loads(file.read_text())
    assert (record["card"], record["engine"], len(record["answers"])) == ("right", "vllm-0.32.0-fake", 8)
    assert file.stat().st_mode & 0o077 == 0


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("empty", {"empty": True}, {}, r"\(smoke prompt\): the answer is empty"),
    ("rubbish", {"rubbish": True}, {}, r"\(no rubbish\): it finds a plain English text as unlikely as 10\.8 nats"),
    ("nan", {"nan": True}, {}, r"\(no rubbish\): it answers /v1/completions with HTTP 500"),
    ("repeats", {"repeats": True}, {}, r"\(answers with a fixed seed\): most answers are one token over and over"),
    ("alike", {"alike": True}, {}, "one and the same answer to different questions"),
    ("unexpected", {}, {"gate": {"smoke": {"prompt": "say=Hamburg", "expect": "^Paris"}}}, "gate.smoke.expect"),
    ("stalled", {"stall": True}, {"gate": {"seconds": 0.3}}, r"wasn't through within gate\.seconds \(0\.3 s\)"),
    ("zeros", {"empty": True}, {"task": "embedding"}, r"\(no rubbish\): its vectors hold what is no number"),
]


@pytest.mark.parametrize(("card", "faults", "changed", "why"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_what_answers_otherwise_than_its_card_says_is_refused(
    acceptance: Acceptance, ready: Ready, kept: Kept, card: str, faults: dict[str, Any], changed: dict[str, Any],
    why: str,
) -> None:  # fmt: skip
    engine = await ready(card, live := dict[str, Any](), **changed)
    live |= faults
    with pytest.raises(NotAccepted, match=why) as refusal:
        await acceptance.accept(engine, None, lambda _: None)
    assert str(refusal.value).startswith(f"chat: {card} did not pass its gate")
    result = acceptance.results["chat"]
    check, _, reason = (result.failed or "").partition(": ")
    assert f"({check}): {reason}" in str(refusal.value)
    assert not result.passed
    assert kept() == []


async def test_adapters_are_looked_at_too(acceptance: Acceptance, ready: Ready) -> None:
    await acceptance.accept(await ready("base2", {}, ("law", "tax")), None, lambda _: None)
    with pytest.raises(NotAccepted, match=r"a plain text, with the adapter tax, as unlikely as 10\.8 nats"):
        await acceptance.accept(await ready("base3", {"rubbish": "tax"}, ("law", "tax")), None, lambda _: None)


@pytest.mark.parametrize("task", ["embedding", "rerank"])
async def test_models_that_only_read_have_a_gate(acceptance: Acceptance, ready: Ready, kept: Kept, task: str) -> None:
    for _ in range(2):
        await acceptance.accept(await ready("reads", task=task), await ready("reads"), lambda _: None)
    assert acceptance.results["chat"].passed
    assert acceptance.results["chat"].figures.get("same_percent") == (100 if task == "embedding" else None)
    assert len(kept()) == 1


async def test_weights_that_answer_otherwise_than_they_did_are_refused(
    acceptance: Acceptance, ready: Ready, kept: Kept
) -> None:
    old = await ready("other")
    await acceptance.accept(await ready("known"), None, lambda _: None)
    await acceptance.accept(await ready("known"), old, lambda _: None)
    assert acceptance.results["chat"].figures["same_percent"] == 100
    drifted = await ready("known", {"drifts": "far"})
    with pytest.raises(NotAccepted, match=r"8 % of the answers are as on 20.*remove .*/acceptance/") as told:
        await acceptance.accept(drifted, old, lambda _: None)
    (file,) = kept()
    assert str(file) in str(told.value)
    file.unlink()
    await acceptance.accept(drifted, old, lambda _: None)


async def test_a_start_with_known_weights_is_asked_no_more_than_whether_it_makes_sense(
    acceptance: Acceptance, ready: Ready
) -> None:
    engine = await ready("known")
    await acceptance.accept(engine, None, lambda _: None)
    told: list[str] = []
    await acceptance.accept(engine, None, told.append)
    assert [line for line in told if "gate: " in line] == ["chat: gate: smoke prompt", "chat: gate: no rubbish"]


def edited(file: Path, **changes: Any) -> None:
    """Have a record say something else."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


async def test_a_start_with_known_weights_that_compute_otherwise_is_asked_everything(
    acceptance: Acceptance, ready: Ready, kept: Kept
) -> None:
    engine = await ready("known")
    await acceptance.accept(engine, None, lambda _: None)
    edited(kept()[0], nats={"english": 3.02})
    told: list[str] = []
    await acceptance.accept(engine, None, told.append)
    assert "chat: gate: answers with a fixed seed" in told


async def test_known_weights_in_the_place_of_known_ones_hold_nobody_up(
    acceptance: Acceptance, ready: Ready, kept: Kept
) -> None:
    old, new = await ready("old"), await ready("new")
    await acceptance.accept(old, None, lambda _: None)
    (before,) = kept()
    await acceptance.accept(new, old, lambda _: None)
    (record,) = set(kept()) - {before}
    told: list[str] = []
    await acceptance.accept(new, old, told.append)
    assert "chat: gate: speed" in told  # nobody waits: the old one still serves
    await old.rest(0)
    told.clear()
    await acceptance.accept(new, old, told.append)
    assert [line for line in told if "gate: " in line] == ["chat: gate: smoke prompt", "chat: gate: no rubbish"]
    assert any("and compute what they did then" in line for line in told)
    assert acceptance.results["chat"].figures["times_slower"] == 1
    slow = {"first": 0.1, "one": 0.5, "several": 0.5}
    edited(record, speed=slow)
    told.clear()
    await acceptance.accept(new, old, told.append)
    assert "chat: gate: speed" in told  # by its record it would be refused: it is asked again
    edited(before, golden={"set@1": {"passed": 9, "cases": 10}})
    edited(record, golden={"set@1": {"passed": 1, "cases": 10}})
    told.clear()
    await acceptance.accept(new, old, told.append)
    assert "chat: gate: golden set" in told


async def test_a_start_with_known_weights_and_a_higher_bar_has_to_pass_it(
    house: House, acceptance: Acceptance, ready: Ready
) -> None:
    engine = await ready("known")
    await acceptance.accept(engine, None, lambda _: None)
    golden(house, case(1, "Yes", "no"))
    told: list[str] = []
    await acceptance.accept(engine, None, told.append)
    assert "chat: gate: golden set" in told
    gate = engine.spec.card.gate.model_copy(update={"golden_percent": 50.0})
    engine.spec = replace(engine.spec, card=engine.spec.card.model_copy(update={"gate": gate}))
    with pytest.raises(NotAccepted, match=r"0 % of the cases passed"):
        await acceptance.accept(engine, None, lambda _: None)


async def test_a_least_score_without_a_golden_set_is_refused(acceptance: Acceptance, ready: Ready) -> None:
    with pytest.raises(NotAccepted, match="but no golden set has `gate: true`"):
        await acceptance.accept(await ready("any", gate={"golden_percent": 50}), None, lambda _: None)


async def test_a_model_that_is_far_slower_is_refused(acceptance: Acceptance, ready: Ready) -> None:
    old = await ready("quick", {"crawl": 0.008})
    slow = await ready("slow", {"crawl": 0.06})
    with pytest.raises(NotAccepted, match=r"\(speed\): it takes \d+\.\d times as long as quick for its tokens"):
        await acceptance.accept(slow, old, lambda _: None)
    patient = await ready("patient", {"crawl": 0.06}, gate={"slower_times": 50})
    await acceptance.accept(patient, old, lambda _: None)
    assert 2 < acceptance.results["chat"].figures["times_slower"] < 50


async def test_an_old_one_that_has_made_room_is_compared_by_its_record(acceptance: Acceptance, ready: Ready) -> None:
    old = await ready("quick", {"crawl": 0.008})
    await acceptance.accept(old, None, lambda _: None)
    await old.rest(0)
    with pytest.raises(NotAccepted, match="times as long as quick"):
        await acceptance.accept(await ready("slow", {"crawl": 0.06}), old, lambda _: None)


async def test_an_old_one_with_callers_is_asked_for_one_answer_only(
    house: House, acceptance: Acceptance, ready: Ready
) -> None:
    def streams() -> int:
        heard = (house.folder / "home" / "heard.jsonl").read_text().splitlines()
        notes = [json.loads(line) for line in heard]
        return sum(note["event"] == "gate" and note["card"] == "busy" for note in notes)

    old, new = await ready("busy", {"crawl": 0.008}), await ready("new")
    with old.lease():
        await acceptance.accept(new, old, lambda _: None)
    assert streams() == 1
    assert old.leases == 0
    await acceptance.accept(new, old, lambda _: None)
    assert streams() > 5


async def test_an_old_one_that_hangs_keeps_nobody_from_taking_over(
    acceptance: Acceptance, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.acceptance.trial._OLD_PATIENCE", 0.05)
    old, new = await ready("stuck", faults := dict[str, Any]()), await ready("new")
    faults["stall"] = True
    await acceptance.accept(new, old, lambda _: None)
    assert "times_slower" not in acceptance.results["chat"].figures


def golden(house: House, *cases: dict[str, Any], folder: str = "evals") -> None:
    written = {"title": "Tried at the gate", "language": "en", "gate": True, "cases": list(cases)}
    (house.folder / "models" / folder).mkdir(parents=True, exist_ok=True)
    (house.folder / "models" / folder / "first.yaml").write_text(yaml.safe_dump(written))


def case(number: int, said: str, expected: str) -> dict[str, Any]:
    return {"id": f"c{number}", "prompt": f"say={said}", "checks": [{"kind": "exact", "text": expected}]}


async def test_the_golden_set_has_a_least_score(house: House, acceptance: Acceptance, ready: Ready) -> None:
    golden(house, case(1, "Yes", "yes"), case(2, "Yes", "no"), case(3, "No", "no"))
    await acceptance.accept(await ready("any"), None, lambda _: None)
    assert acceptance.results["chat"].figures["golden_percent"] == pytest.approx(66.7, abs=0.1)
    with pytest.raises(NotAccepted, match=r"67 % of the cases passed; .* asks for 90\. .* first/c2: isn't"):
        await acceptance.accept(await ready("strict", gate={"golden_percent": 90}), None, lambda _: None)


async def test_the_golden_set_may_not_come_out_much_worse_than_before(
    house: House, acceptance: Acceptance, ready: Ready
) -> None:
    golden(house, *(case(number, "Yes", "yes") for number in range(4)))
    old = await ready("old")
    await acceptance.accept(old, None, lambda _: None)
    dumb = await ready("dumb", {"dumb": True})
    with pytest.raises(NotAccepted, match="100 percentage points fewer of the cases passed than with old"):
        await acceptance.accept(dumb, old, lambda _: None)
    golden(house, *(case(number, "Yes", "yes") for number in range(5)))  # another set, which nobody was asked before
    await acceptance.accept(dumb, old, lambda _: None)


async def test_a_broken_golden_set_is_told_and_nothing_is_accepted(
    house: House, acceptance: Acceptance, ready: Ready
) -> None:
    golden(house, {"id": "c1", "prompt": "?", "checks": []})
    with pytest.raises(NotAccepted, match=r"\(golden set\): .*first\.yaml:\n  line \d+: cases\[0\]\.checks"):
        await acceptance.accept(await ready("any"), None, lambda _: None)


async def test_an_engine_that_dies_at_the_gate_is_refused_with_its_last_words(
    acceptance: Acceptance, ready: Ready
) -> None:
    engine = await ready("dies", {"crawl": 0.05})
    accepting = asyncio.create_task(acceptance.accept(engine, None, lambda _: None))
    async with asyncio.timeout(30):
        while "chat" not in acceptance.results and not accepting.done():
            await asyncio.sleep(0)
            if engine.upstream is not None and engine.process is not None and engine.load.moved >= -1:
                engine.process.end(137)  # type: ignore[attr-defined]
        with pytest.raises(NotAccepted, match=r"the engine ended \(killed by signal 9\)"):
            await accepting


async def test_records_of_other_settings_and_of_other_weights_are_others(
    house: House, acceptance: Acceptance, ready: Ready
) -> None:
    one, other = (await ready("one")).spec, (await ready("other")).spec
    records = Records(house.state)
    assert records.file(one) != records.file(other)
    shorter = replace(one, settings=one.settings.model_copy(update={"context_length": 64}))
    patient = replace(one, settings=one.settings.model_copy(update={"drain_seconds": 1, "startup_seconds": 1}))
    assert records.file(shorter) != records.file(one) == records.file(patient)


async def test_a_record_that_cannot_be_read_counts_as_none_and_is_told(
    acceptance: Acceptance, ready: Ready, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await ready("known")
    await acceptance.accept(engine, None, lambda _: None)
    (file,) = kept()
    file.write_text('{"card": "half a rec')
    await acceptance.accept(engine, None, lambda _: None)
    assert f"{file} can't be read (ValidationError); it counts as missing" in caplog.text
    assert json.loads(file.read_text())["card"] == "known"


async def test_marks_that_cannot_be_compared_are_refused(
    house: House, acceptance: Acceptance, ready: Ready, kept: Kept
) -> None:
    golden(house, case(1, "Yes", "yes"))
    old, new = await ready("old"), await ready("new")
    await acceptance.accept(old, None, lambda _: None)
    (file,) = kept()
    file.write_text('{"card": "half a rec')
    with pytest.raises(NotAccepted, match=rf"\(golden set\): {file} can't be read"):
        await acceptance.accept(new, old, lambda _: None)
    file.unlink()
    await acceptance.accept(new, old, lambda _: None)
