"""A change of the config is shown before it is made, takes effect by itself where that is wanted, and goes back."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import control
from appliance.__main__ import main
from appliance.audit.archive import Actor
from appliance.audit.verifier import verify
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"


@pytest.fixture
def running(house: House, start: Start) -> Running:
    """`chat` is answered by the card `one`; there are other cards to change to."""
    for card in ("one", "two"):
        house.card(card)
    house.card("slow", faults={"slow": 2})
    house.card("crash", faults={"start": "crash"})
    house.serve("chat", "one")
    return start(house).ready()


def command(house: House, *arguments: str) -> tuple[int, str, str]:
    """The exit status of a command, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as complaint:
        status = main([*arguments, "--config", str(house.config)])
    return status, out.getvalue(), complaint.getvalue()


def told(house: House, *arguments: str) -> Any:
    """What a command prints as JSON."""
    status, out, _ = command(house, *arguments, "--json")
    assert status == 0, out
    return json.loads(out)


def says(running: Running) -> str:
    """The card whose weights answer now."""
    with running.client() as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=1"}]}
        text: str = client.post(PATH, json=body).json()["choices"][0]["message"]["content"]
    return text


def acts(house: House) -> list[dict[str, Any]]:
    """What is on record of applies."""
    lines = [
        line for file in sorted((house.state / "audit").glob("0*.jsonl")) for line in file.read_text().splitlines()
    ]
    bodies = [record["body"] for record in map(json.loads, lines) if record["kind"] == "act"]
    return [body for body in bodies if body["act"] == "config.apply"]


def everything(house: House) -> dict[str, bytes]:
    """The files that tell what is in effect."""
    files = [house.config, *(house.state / "configs").iterdir(), house.state / "audit-work" / "applied.yaml"]
    return {str(file): file.read_bytes() for file in files}


def test_a_dry_run_shows_what_an_apply_would_change_and_changes_nothing(house: House, running: Running) -> None:
    house.serve("chat", "two")
    house.serve("other", "two")
    house.write(limits={"choices": 2})
    before = everything(house)
    proposal = told(house, "apply", "--dry-run")
    steps = {step["name"]: step for step in proposal["models"]}
    assert (steps["chat"]["action"], steps["chat"]["waits"], steps["other"]["action"]) == ("beside", False, "start")
    assert (steps["chat"]["old"][:4], steps["chat"]["new"][:4]) == ("one@", "two@")
    assert (proposal["settings"], proposal["restart"], proposal["refused"]) == (["limits"], [], None)
    assert "-    card: one" in proposal["diff"]
    status, text, _ = command(house, "apply", "--dry-run")
    assert status == 0
    assert "no request waits" in text
    assert "limits           is taken over" in text
    assert everything(house) == before
    assert (len(house.heard("start")), says(running), acts(house)) == (1, "one", [])
    status, text, progress = command(house, "apply")
    assert status == 0, progress
    places = [text.index(each) for each in ("no request waits", "chat: now answered by two", "version 2 is in effect")]
    assert places == sorted(places), "the plan first, then what was done"


def test_a_dry_run_says_why_an_apply_would_change_nothing(house: House, running: Running) -> None:
    house.write(egress={"mode": "deny", "seal": "best-effort", "verify": {"every_seconds": 0}})
    status, text, _ = command(house, "apply", "--dry-run")
    assert status == 2
    assert "egress: changes only with a restart" in text
    house.serve("chat", "one", context_length=4096)
    house.write(egress={"mode": "deny", "verify": {"every_seconds": 0}})
    status, text, complaint = command(house, "apply", "--dry-run")
    assert (status, text) == (2, "")
    assert "models.chat.context_length: is over the card's 512" in complaint
    assert json.loads(command(house, "apply", "--dry-run", "--json")[1])["problems"][0]["where"]
    house.serve("chat", "two")
    house.write()
    two = house.folder / "models" / "two"
    (two / "weights" / "manifest.json").unlink()
    status, text, _ = command(house, "apply", "--dry-run")
    assert (status, "+    card: two" in text) == (2, True)
    assert "isn't prepared. Run `appliance models prepare two`." in text
    (two / "card.yaml").write_text("title: Two\nsize: 1\n")
    status, _, complaint = command(house, "apply", "--dry-run")
    assert (status, f"{two / 'card.yaml'}:\n" in complaint, "line 2: size: " in complaint) == (2, True, True)
    assert says(running) == "one"


def test_rollback_returns_to_any_version_and_back_and_is_on_record(house: House, running: Running) -> None:
    first = house.config.read_bytes()
    house.config.chmod(0o640)
    for card in ("two", "slow"):
        house.serve("chat", card)
        house.write()
        assert "changes" in running.apply()
    third = house.config.read_bytes()
    assert told(house, "rollback", "1")["version"] == 4
    assert (house.config.read_bytes(), house.config.stat().st_mode & 0o777) == (first, 0o640)
    assert says(running) == "one"
    assert told(house, "rollback")["version"] == 5, "without a number: what was in effect before"
    assert (house.config.read_bytes(), says(running)) == (third, "slow")
    versions = told(house, "versions")
    assert [(each["number"], each["rollback"], each["in_effect"]) for each in versions] == [
        (1, None, False), (2, None, False), (3, None, False), (4, 1, False), (5, 3, True),
    ]  # fmt: skip
    assert versions[0]["by"] == "start"
    assert {each["by"] for each in versions[1:]} == {Actor.host().name}
    assert "← in effect" in command(house, "versions")[1].splitlines()[-1]
    folder = house.state / "configs"
    assert {file.stat().st_mode & 0o77 for file in (folder, *folder.iterdir())} == {0}
    ended = [body for body in acts(house) if body["phase"] == "done"]
    assert [(body["version"], body["rollback"]) for body in ended[-2:]] == [(4, 1), (5, 3)]
    assert not list(house.folder.glob("*.before-rollback*")), "all that stood in the file is kept as a version"


def test_edits_that_were_never_applied_are_saved_when_the_file_goes_back(house: House, running: Running) -> None:
    house.serve("chat", "two")
    house.write()
    running.apply()
    right = house.config.read_bytes()
    edits = [right + b"models: [\n", right + b"\xff"]
    for number, edit in enumerate(edits, 1):
        house.config.write_bytes(edit)
        shown = command(house, "status")
        assert "has edits that are not in effect" in shown[1]
        status, text, complaint = command(house, "rollback", str(number))
        assert status == 0, complaint
        assert "before-rollback" in text
    saved = sorted(house.folder.glob("*.before-rollback*"))
    assert [file.read_bytes() for file in saved] == edits
    assert running.status()["version"]["unapplied"] is False


def test_a_version_that_cant_be_applied_any_more_says_so_and_nothing_changes(house: House, running: Running) -> None:
    house.serve("chat", "two")
    house.write()
    running.apply()
    edited = house.config.read_bytes() + b"# half an edit\n"
    house.config.write_bytes(edited)
    card = house.folder / "models" / "one" / "card.yaml"
    weights = house.folder / "models" / "one" / "weights" / "model.safetensors"
    kept = card.read_bytes()
    weights.write_bytes(weights.read_bytes()[::-1])
    status, _, complaint = command(house, "rollback")
    assert status != 0
    assert "its checksum differs" in complaint
    card.unlink()
    status, _, complaint = command(house, "rollback", "1")
    assert status != 0
    assert "there is no model 'one'" in complaint
    status, _, complaint = command(house, "rollback", "9")
    assert (status, "there is no version 9 of the config; there are 1 to 2" in complaint) == (2, True)
    card.write_bytes(kept)
    assert house.config.read_bytes() == edited
    assert (says(running), running.status()["version"]["number"]) == ("two", 2)
    assert [file.name for file in house.folder.glob("appliance.yaml*")] == ["appliance.yaml"]


def test_a_rollback_that_fails_takes_nothing_back_that_was_edited_meanwhile(house: House, running: Running) -> None:
    house.serve("chat", "two")
    house.write()
    running.apply()
    (house.folder / "models" / "one" / "weights" / "manifest.json").unlink()
    edited = house.config.read_bytes() + b"# meanwhile\n"
    real = control.ask

    def ask(state: Path, method: str, path: str, *rest: Any, **how: Any) -> Iterator[dict[str, Any]]:
        if path == "/apply":
            house.config.write_bytes(edited.replace(b"two", b"one"))
        return real(state, method, path, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "ask", ask)
        status, _, complaint = command(house, "rollback")
    assert (status, "isn't prepared" in complaint) == (1, True)
    assert house.config.read_bytes() == edited.replace(b"two", b"one")


def test_nothing_but_a_plain_file_is_read_in_the_configs_place(house: House, running: Running) -> None:
    """A pipe would be waited for: by the appliance, which is at work for everybody, and by whoever gives a command."""
    house.config.unlink()
    os.mkfifo(house.config)
    assert running.status()["version"]["unapplied"] is None
    assert "no plain file" in running.apply()["error"]
    for arguments in (("apply",), ("rollback", "1")):
        assert command(house, *arguments)[0] == 2
    assert says(running) == "one"


def test_a_rollback_with_nobody_to_apply_it_is_in_effect_at_the_next_start(house: House, start: Start) -> None:
    for card in ("one", "two"):
        house.card(card)
    house.serve("chat", "one")
    running = start(house).ready()
    house.serve("chat", "two")
    house.write()
    running.apply()
    running.stop()
    house.config.write_bytes(house.config.read_bytes() + b"models: [")
    status, text, complaint = command(house, "rollback", "1")
    assert status == 0, complaint
    assert "no appliance runs" in text
    house.settings = yaml.safe_load(house.config.read_text())
    again = start(house).ready()
    assert says(again) == "one"
    assert [(each["number"], each["by"]) for each in told(house, "versions")][-1] == (3, "start")


@pytest.mark.parametrize("signum", [signal.SIGKILL])
def test_killed_in_mid_apply_it_starts_with_what_the_file_says(house: House, start: Start, signum: int) -> None:
    for card in ("one", "two"):
        house.card(card)
    house.card("slow", faults={"slow": 60})
    house.serve("chat", "one")
    running = start(house).ready()
    house.serve("chat", "slow", startup_seconds=90)
    house.write()
    lines = control.ask(house.state, "POST", "/apply")
    next(lines)
    until(lambda: len(house.heard("start")) == 2)
    assert running.status()["version"]["applying"]
    running.process.send_signal(signum)
    running.process.wait()
    lines.close()  # type: ignore[attr-defined]
    until(lambda: not running.engine_pids())
    assert [version["number"] for version in told(house, "versions")] == [1]
    house.serve("chat", "two")
    again = start(house).ready()
    assert says(again) == "two"
    assert [version["number"] for version in told(house, "versions")] == [1, 2]
    assert [body["phase"] for body in acts(house)] == ["intent"], "begun, and never ended"
    again.stop()
    assert verify(house.state / "audit").genuine


def test_a_watched_config_is_applied_by_itself_once_it_stays_as_it_is(house: House, start: Start) -> None:
    for card in ("one", "two"):
        house.card(card)
    house.serve("chat", "one")
    running = start(house).ready()
    house.serve("chat", "two")
    house.write(watch=True)
    assert "watch: taken over" in running.apply()["changes"]
    log = house.state / "logs" / "appliance.log"
    house.serve("chat", "one")
    draft = house.config.with_suffix(".swp")
    house.config, real = draft, house.config
    house.write()
    house.config = real
    draft.replace(real)  # as editors do
    until(lambda: running.model()["card"] == "one" and running.model()["state"] == "ready")
    until(lambda: running.status()["version"]["by"] == "watch")
    real.write_text("models: [")
    until(lambda: running.status()["version"]["refused"])
    version = running.status()["version"]
    assert (version["unapplied"], "isn't YAML" in version["refused"]) == (True, True)
    real.unlink()
    until(lambda: running.status()["version"]["unapplied"] is None)
    house.write(watch=False)
    until(lambda: running.status()["version"]["refused"] is None)
    assert log.read_text().count("watch: nothing was changed") == 1, "told once"
    version = running.status()["version"]
    assert (version["unapplied"], version["watch"]) == (False, False)


def test_a_watched_config_may_be_swapped_as_kubernetes_does_it(house: House, start: Start) -> None:
    for card in ("one", "two"):
        house.card(card)
    folder = house.folder / "mounted"
    folder.mkdir()

    def mount(number: int, card: str) -> None:
        settings = house.settings | {"models": {"chat": {"card": card, "startup_seconds": 20}}, "watch": True}
        settings |= {name: str(house.folder / name) for name in ("state",)} | {
            "models_folder": str(house.folder / "models"),
            "engines": house.settings["engines"] | {"environment": str(house.folder / "engine")},
        }
        inside = folder / f"..{number}"
        inside.mkdir()
        (inside / "appliance.yaml").write_text(yaml.safe_dump(settings))
        (folder / "..new").symlink_to(inside.name)
        (folder / "..new").replace(folder / "..data")

    mount(1, "one")
    (folder / "appliance.yaml").symlink_to("..data/appliance.yaml")
    house.config = folder / "appliance.yaml"
    running = Running(house).ready()
    try:
        mount(2, "two")
        until(lambda: running.model()["card"] == "two" and running.model()["state"] == "ready")
        assert running.status()["config"] == str(folder / "appliance.yaml")
    finally:
        running.process.kill()
        running.process.wait()


def test_a_version_that_cant_be_kept_is_in_effect_all_the_same(house: House, running: Running) -> None:
    folder = house.state / "configs"
    kept = folder.rename(house.state / "elsewhere")
    folder.write_text("in the way")
    house.serve("chat", "two")
    house.write()
    assert running.apply() == {"changes": ["chat: now answered by two"]}
    assert says(running) == "two"
    assert "in effect but not kept" in command(house, "status")[1]
    folder.unlink()
    kept.rename(folder)
    running.apply()
    assert running.status()["version"]["number"] == 2


def test_no_version_opens_what_is_closed_whoever_put_it_there(house: House, running: Running) -> None:
    """A gateway that was taken over can write to the folder of versions, and would be unsealed at the next start."""
    open_ = yaml.safe_load(house.config.read_text())
    open_["egress"]["seal"] = "best-effort"
    folder, text = house.state / "configs", yaml.safe_dump(open_).encode()
    (folder / "000002.yaml").write_bytes(text)
    entry = json.loads((folder / "000001.json").read_bytes())
    digest = hashlib.sha256(text).hexdigest()
    (folder / "000002.json").write_text(json.dumps(entry | {"number": 2, "sha256": digest}))
    before = house.config.read_bytes()
    for edited in (before, before + b"models: ["):
        house.config.write_bytes(edited)
        status, _, complaint = command(house, "rollback", "2")
        assert (status, house.config.read_bytes()) == (2, edited)
        assert "egress.seal: is best-effort in that version and required here" in complaint


def test_whoever_is_erased_is_in_no_config_of_before(house: House, start: Start) -> None:
    house.card("one")
    house.serve("chat", "one")
    house.write(accounts={"users": {"wilhelmine": {"tokens_per_day": 5}}})
    running = start(house).ready()
    house.write(accounts={})
    assert "changes" in running.apply()
    assert told(house, "audit", "erase", "--subject", "wilhelmine")["configs"] == 1
    holding = [file for file in house.state.rglob("*") if file.is_file() and b"wilhelmine" in file.read_bytes()]
    assert holding == []
    assert told(house, "rollback", "1")["version"] == 3
    assert says(running) == "one"
