"""The template starts with what the config and the site say, or says why it can't; and ends with all its forks."""

from __future__ import annotations

import psutil
import pytest

from appliance.errors import ConfigInvalid, GateFailed, SealUnavailable
from appliance.privacy import guard as guards
from appliance.privacy.guard import Guard
from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.lists import Lists
from appliance.seal.evidence import evidence
from tests.fakes import detector
from tests.fakes.guards import asked, configured, guarded, process, workers
from tests.fakes.house import House, over, until


async def test_a_start_without_the_seal_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that was installed before forbids it what it needs to seal itself."""
    forbid = (
        "from appliance.seal import kernel; kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1); "
        "kernel.seccomp([kernel.never('landlock_restrict_self')]); "
    )
    before = psutil.Process().children()
    with pytest.raises(SealUnavailable, match="gate: the seal lacks landlock tcp"):
        async with guarded(house, monkeypatch, ["-c", forbid + detector.COMMAND[1]]):
            pass
    assert set(psutil.Process().children()) <= set(before)


async def test_a_thread_that_a_library_started_keeps_it_from_starting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); "
    with pytest.raises(SealUnavailable, match="one thread"):
        async with guarded(house, monkeypatch, ["-c", thread + detector.COMMAND[1]]):
            pass


async def test_a_detector_that_can_not_be_loaded_keeps_it_from_starting(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = "from tests.fakes import detector; del detector.Detector; detector.main()"
    with pytest.raises(GateFailed, match="ended before it was sealed"):
        async with guarded(house, monkeypatch, ["-c", broken]):
            pass
    assert "Detector" in capfd.readouterr().err


def test_a_model_that_is_not_all_there_is_a_problem_of_the_config(house: House) -> None:
    (house.folder / "bigger").mkdir()
    (house.folder / "bigger" / "model.onnx").touch()
    made = configured(house, detectors={"rampart": "bigger"})
    with pytest.raises(ConfigInvalid, match=r"privacy.detectors.rampart: .* lacks tokenizer.json, config.json; name"):
        Guard.start(made)


async def test_the_lists_of_the_site_are_read_before_the_seal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = house.state.parent / "state" / "lists"
    monkeypatch.setattr(guards, "_COMMAND", detector.COMMAND)
    made = configured(house, lists=str(lists))
    Lists(lists).change(Kind.CLIENT, lambda _: [SiteEntry("Nordwind Textil", Kind.CLIENT)])
    guard = Guard.start(made)
    try:
        verdict = await guard.protect(asked("Was schuldet uns Nordwind Textil?"))
        assert (verdict.held, [*verdict.originals.values()]) == (None, ["Nordwind Textil"])
    finally:
        guard.close()


def test_lists_that_can_not_be_read_keep_it_from_starting(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_COMMAND", detector.COMMAND)
    made = configured(house, lists="state/lists")
    folder = house.state / "lists"
    Lists(folder).change(Kind.CLIENT, lambda _: [SiteEntry("Nordwind Textil", Kind.CLIENT)])
    (file,) = [file for file in folder.iterdir() if file.stat().st_size > 32]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(GateFailed, match="is damaged"):
        Guard.start(made)


def test_it_can_be_started_and_ended_again_and_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_COMMAND", detector.COMMAND)
    made = configured(house)
    keys = set()
    for _ in range(3):
        guard = Guard.start(made)
        template = psutil.Process(next(iter(guard.pids)))
        family = [template, *template.children(recursive=True)]
        assert len(family) >= 2
        keys.add(guard.public_key)
        guard.close()
        until(lambda family=family: all(over(each) for each in family))
        (made.state / "run" / "gate").rmdir()
    assert len(keys) == 3


async def test_the_real_detectors_load_seal_themselves_and_find(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, ["-P", "-m", "appliance.privacy.process"], seconds=30) as guard:
        assert guard.seals["gate"].missing == ()
        (thread,) = evidence(process(guard, "template").pid)
        assert thread.seccomp == 2
        verdict = await guard.protect(
            asked("Sehr geehrte Damen und Herren, bitte schreiben Sie an Sabine Schubert, sabine.schubert@example.de.")
        )
        assert verdict.held is None, verdict
        assert b"Schubert" not in verdict.payload
        assert b"example.de" not in verdict.payload
        (worker,) = workers(guard)
        assert [(thread.seccomp, thread.capabilities) for thread in evidence(worker.pid)] == [(2, 0)]
