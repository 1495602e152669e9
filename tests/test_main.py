"""The command line: what it says, what a script can read of it, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from appliance.__main__ import main
from tests.fakes.house import ROOT, House, Running, until

COMMANDS = [
    [],
    ["serve"],
    ["apply"],
    ["check-config"],
    ["status"],
    ["models"],
    ["models", "list"],
    ["models", "prepare"],
    ["bundle"],
]


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "appliance", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **(environment or {})},
    )  # fmt: skip


@pytest.fixture
def right(house: House) -> House:
    """A config that is right, with prepared weights."""
    house.card("tiny")
    house.card("small", task="embedding")
    house.serve("chat", "tiny")
    house.write()
    return house


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 5
    if command and command != ["models"]:
        assert "--config" in out
    if not command:
        assert "exit status:" in out
        assert all(name in out for name in ("serve", "apply", "check-config", "status", "models"))


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--nope"], ["models"], ["models", "prepare"]])
def test_a_wrong_command_line_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_right_config_is_0(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(right.config)]) == 0
    assert "is right (models: chat)" in capsys.readouterr().out
    assert main(["check-config", "--json", "--config", str(right.config)]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "models": ["chat"]}


def _break(change: Callable[[House], Any]) -> Callable[[House], None]:
    def broken(house: House) -> None:
        change(house)
        house.write()

    return broken


WRONG: dict[str, tuple[Callable[[House], object], str]] = {
    "unknown setting": (
        _break(lambda house: house.settings.update(modles={})),
        "modles: unknown setting; did you mean",
    ),
    "no such card": (
        _break(lambda house: house.serve("chat", "gone")),
        "there is no model 'gone'; there are: small, tiny",
    ),
    "no weights": (
        _break(lambda house: (house.folder / "models/tiny/weights/manifest.json").unlink()),
        "isn't prepared",
    ),
    "changed weights": (
        _break(lambda house: (house.folder / "models/tiny/weights/model.safetensors").write_bytes(b"TINY")),
        "its checksum differs",
    ),
    "no environment": (_break(lambda house: house.settings["engines"].update(environment="gone")), "isn't there"),
    "a GPU that isn't there": (
        _break(lambda house: house.settings["engines"].update(device="cuda")),
        "no NVIDIA driver",
    ),
    "open to the network": (
        _break(lambda house: house.settings["listen"].update(host="::")),
        "reachable from the",
    ),
    "no YAML": (lambda house: house.config.write_text("models: ["), "isn't YAML"),
    "no file": (lambda house: house.config.unlink(), "can't be read: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_is_2_with_one_clear_message_and_no_traceback(right: House, case: str) -> None:
    change, expected = WRONG[case]
    change(right)
    for command in ("serve", "check-config"):
        ended = run(command, "--config", right.config)
        assert ended.returncode == 2, ended.stderr
        assert ended.stdout == ""
        assert ended.stderr.count("appliance: ") == 1
        assert expected in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_wrong_config_as_json_names_line_and_place(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    right.write(lissten={})
    assert main(["check-config", "--json", "--config", str(right.config)]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["where"] == "lissten"
    assert problem["line"] > 1
    assert "did you mean `listen`" in problem["what"]


def test_a_port_in_use_and_a_missing_certificate_are_2(right: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        right.settings["listen"]["port"] = taken.getsockname()[1]
        right.write()
        ended = run("serve", "--config", right.config)
    assert ended.returncode == 2
    assert "Address already in use; is another program there?" in ended.stderr
    assert "Traceback" not in ended.stderr
    right.settings["listen"] = {"port": 0, "tls": {"certificate": "none.crt", "key": "none.key"}}
    right.write()
    ended = run("serve", "--config", right.config)
    assert ended.returncode == 2
    assert "listen.tls: the certificate or its key can't be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_state_folder_in_use_or_out_of_reach_is_2(right: House, start: Callable[..., Running]) -> None:
    running = start(right).ready()
    ended = run("serve", "--config", right.config)
    assert ended.returncode == 2
    assert "is in use by another appliance" in ended.stderr
    assert running.model()["state"] == "ready", "the first isn't disturbed"
    for state, expected in (("x" * 120, "is too long"), ("appliance.yaml/state", "Not a directory")):
        right.write(state=state)
        ended = run("serve", "--config", right.config)
        assert ended.returncode == 2
        assert expected in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["status", "apply"])
def test_where_nothing_runs_is_3(right: House, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--config", str(right.config)]) == 3
    assert "no appliance runs on" in capsys.readouterr().err
    (right.state / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(right.state / "run" / "control.sock"))
    assert main([command, "--json", "--config", str(right.config)]) == 3
    assert "no appliance runs on" in json.loads(capsys.readouterr().out)["error"]


def test_models_are_listed(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    (right.folder / "models" / "small" / "weights" / "manifest.json").unlink()
    assert main(["models", "list", "--config", str(right.config)]) == 0
    small, tiny = capsys.readouterr().out.splitlines()
    assert "to prepare" in small
    assert "served as chat" in tiny
    assert main(["models", "list", "--json", "--config", str(right.config)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["prepared"], row["served_as"]) for row in rows] == [
        ("small", False, []),
        ("tiny", True, ["chat"]),
    ]


def test_a_model_that_can_not_be_prepared_is_1_or_2(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "prepare", "nope", "--config", str(right.config)]) == 2
    assert "there is no model 'nope'" in capsys.readouterr().err
    (right.folder / "models" / "small" / "weights" / "manifest.json").unlink()
    assert main(["models", "prepare", "small", "--config", str(right.config)]) == 1
    assert capsys.readouterr().err


def said_by(running: Running) -> str:
    return running.output.read_text()


def test_a_whole_session(right: House, start: Callable[..., Running]) -> None:
    right.card("crash", faults={"start": "crash"})
    running = start(right).ready()
    text = until(lambda: "curl" in said_by(running) and said_by(running))
    assert running.base_url in text
    assert text.count("sk-appliance-") == 2, "as the key, and in the line to paste"
    curl = text[text.index("curl ") :].strip()
    pasted = subprocess.run(
        ["/bin/bash", "-c", f"{curl.replace('curl ', 'curl -sS ', 1)}"], capture_output=True, text=True, check=True
    )
    assert json.loads(pasted.stdout)["choices"][0]["message"]["content"].startswith("tiny")

    status = run("status", "--config", right.config)
    assert status.returncode == 0
    assert running.base_url in status.stdout
    assert "egress    deny" in status.stdout
    assert json.loads(run("status", "--json", "--config", right.config).stdout)["models"]["chat"]["state"] == "ready"

    applied = run("apply", "--json", "--config", right.config)
    assert (applied.returncode, json.loads(applied.stdout)) == (0, {"changes": []})
    right.serve("chat", "crash")
    right.write()
    failed = run("apply", "--config", right.config)
    assert failed.returncode == 1
    assert "nothing was changed: chat: the engine ended (exit status 1): ValueError" in failed.stderr
    right.write(lissten={})
    assert run("apply", "--config", right.config).returncode == 2

    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(20) == 0
    del right.settings["lissten"]
    right.serve("chat", "tiny")
    again = start(right).ready()
    text = until(lambda: said_by(again).count("curl") > 1 and said_by(again))
    assert "the one shown at the first start" in text
    assert text.count("sk-appliance-") == 2, "no second key is made"


def test_status_is_1_while_a_model_can_not_answer(right: House, start: Callable[..., Running]) -> None:
    right.card("crash", faults={"start": "crash"})
    right.serve("chat", "crash")
    running = start(right)
    until(lambda: running.model()["reason"])
    status = run("status", "--config", right.config)
    assert status.returncode == 1
    assert "the checkpoint is not what the configuration says" in status.stdout or "starting" in status.stdout


def test_the_control_socket_is_for_its_owner_and_not_on_tcp(right: House, start: Callable[..., Running]) -> None:
    running = start(right)
    path = right.state / "run" / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with running.client() as client:
        for route in ("/status", "/apply", "/keys/lend"):
            assert client.get(route).status_code == 404
            assert client.post(route).status_code == 404
