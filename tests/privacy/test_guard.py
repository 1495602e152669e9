"""The gateway's end: what the gate says comes back to whoever asked, and nothing else is believed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance import clearance
from appliance.clearance import NotCleared
from appliance.core import DataClass
from appliance.privacy import guard as guards
from appliance.privacy.asked import Asked
from appliance.privacy.kinds import Kind
from appliance.privacy.verdict import Held
from tests.fakes import gatehouse
from tests.fakes.guards import asked, configured, guarded, soon, workers
from tests.fakes.house import ROOT, House, over

REQUEST = {"provider": "mistral", "method": "POST", "path": "/v1/chat/completions"}


async def test_a_request_is_protected_and_its_final_bytes_are_cleared(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        verdict = await guard.protect(asked("Schreibe an Anna Weber und an Bernd Klein."))
        assert (verdict.held, verdict.data_class, verdict.providers) == (None, DataClass.PERSONAL, ("mistral",))
        assert sorted(verdict.originals.values()) == ["Anna Weber", "Bernd Klein"]
        assert b"Anna" not in verdict.payload
        assert b"Klein" not in verdict.payload
        signed = await guard.clear(verdict.ticket, body=verdict.payload, **REQUEST)
        key = Ed25519PublicKey.from_public_bytes(guard.public_key)
        said = clearance.verify(key, signed, body=verdict.payload, now=time.time(), **REQUEST)
        assert said.provider == "mistral"
        with pytest.raises(NotCleared):
            clearance.verify(key, signed, body=verdict.payload + b" ", now=time.time(), **REQUEST)


async def test_nothing_is_cleared_with_an_original_in_it_or_for_a_stranger(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        verdict = await guard.protect(asked("Schreibe an Anna Weber."))
        with pytest.raises(NotCleared):
            await guard.clear(verdict.ticket, body=verdict.payload + b"Anna Weber", **REQUEST)
        with pytest.raises(NotCleared):
            await guard.clear("0" * 32, body=b"{}", **REQUEST)


async def test_what_is_forgotten_is_cleared_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch) as guard:
        verdict = await guard.protect(asked("Schreibe an Anna Weber."))
        guard.forget(verdict.ticket)
        with pytest.raises(NotCleared):
            await guard.clear(verdict.ticket, body=verdict.payload, **REQUEST)


async def test_an_explanation_tells_what_was_found_where_and_clears_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        told = await guard.explain(asked("Frau Anna Weber fragt."))
        (text,) = [each for each in told.texts if each.spans]
        (span,) = text.spans
        assert (span.start, span.end, span.kind, span.source) == (5, 15, Kind.PERSON, "fake")
        assert text.path == ("messages", 0, "content")
        assert told.verdict.data_class is DataClass.PERSONAL
        with pytest.raises(NotCleared):
            await guard.clear(told.verdict.ticket, body=told.verdict.payload, **REQUEST)


async def test_many_at_once_each_get_their_own_verdict(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, processes=2) as guard:
        verdicts = await asyncio.gather(*(guard.protect(asked(f"Wer ist Person-{at}?")) for at in range(8)))
        assert [list(verdict.originals.values()) for verdict in verdicts] == [[f"Person-{at}"] for at in range(8)]
        assert guard.describe()["released"] == 8


async def test_more_than_can_be_looked_through_are_held_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, seconds=60) as guard:
        slow = [asyncio.create_task(guard.protect(asked("SLOW"))) for _ in range(4)]
        await soon(lambda: guard.describe()["looking"] == 4)
        verdict = await guard.protect(asked("Guten Tag"))
        assert verdict.held is Held.DETECTOR
        assert "too many" in verdict.why
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        # those that nobody waits for any more hold up nobody either
        assert (await guard.protect(asked("Guten Tag"))).held is None


async def test_a_request_too_large_for_any_config_does_not_even_reach_the_gate(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        verdict = await guard.protect(Asked("chat", b"x" * (2**20 + 1), DataClass.PUBLIC, None, 5))
        assert (verdict.held, verdict.data_class) == (Held.TOO_LARGE, DataClass.PUBLIC)


async def test_text_that_has_no_utf_8_comes_back_with_a_verdict(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch) as guard:
        for text in ("\ud800 Anna Weber", "\x00 Anna Weber", "\U0001f600 Anna Weber"):
            verdict = await guard.protect(asked(text))
            assert verdict.held is not None or b"Anna" not in verdict.payload


async def test_the_metrics_tell_what_was_held_and_why(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch) as guard:
        await guard.protect(asked("Guten Tag"))
        await guard.protect(asked("CRASH"))
        await soon(lambda: guard.describe()["detectors_started"] == 2)
        told = guard.describe()
        assert {name: told[name] for name in ("released", "held_detector", "held_gate", "looking", "gone")} == {
            "released": 1, "held_detector": 1, "held_gate": 0, "looking": 0, "gone": 0,
        }  # fmt: skip


async def test_a_frame_that_is_none_ends_the_gate(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch) as guard:
        assert (await guard.protect(asked("Guten Tag"))).held is None
        assert guard._writer
        guard._writer.write(b"\xff\xff\xff\xff")
        async with asyncio.timeout(10):
            await guard.ended()
        assert (await guard.protect(asked("Guten Tag"))).held is Held.GATE


@pytest.mark.parametrize("answer", gatehouse.NONSENSE)
async def test_a_gate_that_talks_nonsense_releases_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(guards, "_CLEAR_SECONDS", 0.5)
    monkeypatch.setattr(guards, "_GRACE", 0)
    async with guarded(house, monkeypatch, gatehouse.command(answer)) as guard:
        verdict = await guard.protect(asked("Guten Tag", seconds=0.5))
        assert (verdict.held, verdict.payload, verdict.ticket) == (Held.GATE, b"", "")
        assert (await guard.explain(asked("Guten Tag", seconds=0.5))).verdict.held is Held.GATE
        with pytest.raises(NotCleared):
            await guard.clear("ticket", body=b"{}", **REQUEST)


async def test_a_verdict_that_comes_too_late_is_forgotten_at_the_gate(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch, gatehouse.command("late")) as guard:
        assert (await guard.protect(asked("Guten Tag", seconds=0.1))).held is Held.GATE
        heard = house.folder / "heard"
        await soon(lambda: heard.exists() and '"forget"' in heard.read_text())
        assert '"ticket": "late"' in heard.read_text()


async def test_who_gives_up_waits_no_longer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, seconds=60) as guard:
        (busy,) = await soon(lambda: workers(guard))
        task = asyncio.create_task(guard.protect(asked("HANG")))
        await soon(lambda: busy.cpu_times().user > 0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: over(busy))  # it worked for nobody
        assert (await guard.protect(asked("Guten Tag"))).held is None


def test_the_gateway_keeps_no_library_that_reads_texts() -> None:
    script = (
        "import sys, appliance.app; heavy = {'onnxruntime', 'numpy', 'tokenizers', 'HanTa', 'presidio_analyzer'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


SEALED = """
import json, sys, uvloop
from pathlib import Path
from appliance import config
from appliance.privacy import guard as guards
from appliance.seal import view
from appliance.seal.gateway import listen_no_more, seal_gateway
from tests.fakes import detector
from tests.fakes.guards import asked

made = config.load(Path(sys.argv[1]))
guards._COMMAND = detector.COMMAND
guard = guards.Guard.start(made)
seal_gateway(view.interpreter(), [made.state])

async def run():
    listen_no_more()
    verdicts = [await guard.protect(asked(f"Anna Weber {'und so weiter ' * times}")) for times in (1, 4000)]
    cleared = await guard.clear(verdicts[0].ticket, "mistral", "POST", "/v1/chat/completions", verdicts[0].payload)
    print(json.dumps([[verdict.held, len(verdict.payload) > 56000] for verdict in verdicts] + [len(cleared) > 100]))

uvloop.run(run())
guard.close()
"""


def test_a_gateway_under_its_own_seal_and_on_its_own_loop_is_served(house: House) -> None:
    """Its filter lets through fewer system calls, and its loop uses others than asyncio's own."""
    command = [sys.executable, "-c", SEALED, str(configured(house).file)]
    told = json.loads(subprocess.check_output(command, cwd=ROOT, timeout=60))
    assert told == [[None, False], [None, True], True]
