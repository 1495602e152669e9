"""The command line: what it says, what a script can read of it, and its exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.commands.keys import LIMITS
from appliance.commands.running import lines
from appliance.config import Allowance
from tests.fakes.house import ROOT, House, Running, until
from tests.fakes.people import SOMEBODY, as_somebody

COMMANDS = [
    [],
    ["serve"],
    ["apply"],
    ["check-config"],
    ["status"],
    ["models"],
    ["models", "list"],
    ["models", "prepare"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "rotate"],
    ["keys", "revoke"],
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
    if command and command not in (["models"], ["keys"]):
        assert "--config" in out
    if command[:1] == ["keys"] and len(command) == 2:
        assert f"\n  appliance {' '.join(command)}" in out, "an example to copy"
    if not command:
        assert "exit status:" in out
        assert all(name in out for name in ("serve", "apply", "check-config", "status", "models"))


WRONG_LINES = [
    "", "nonsense", "serve --nope", "models", "models prepare", "keys", "keys rotate", "keys revoke",
    "keys create --role root", "keys create --class first", "keys create --expires soon", "keys create --expires 90",
    "keys create --expires -1d", "keys create --tokens-per-day many", "keys rotate key_0 --overlap 1",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_command_line_is_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
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
    "no certificate": (
        _break(lambda house: house.settings["listen"].update(tls={"certificate": "none.crt", "key": "none.key"})),
        "listen.tls: the certificate or its key can't be used",
    ),
    "no certificate of the authority": (
        _break(
            lambda house: house.settings.update(
                audit={"timestamps": {"url": "http://10.0.0.1:3161", "certificate": "none.pem"}}
            )
        ),
        "none.pem",
    ),
    "no secret": (
        _break(
            lambda house: house.settings.update(
                accounts={
                    "store": {
                        "postgresql": {"host": "10.0.0.1", "database": "d", "user": "u", "password": "env.NOPE"},
                        "pepper": "env.NOPE",
                    }
                }
            )
        ),
        "NOPE",
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
    (right.folder / "models" / "small" / "card.yaml").write_text("title: [")
    assert main(["models", "list", "--config", str(right.config)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("tiny ")
    assert "small/card.yaml" in said.err


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
    assert (applied.returncode, json.loads(applied.stdout)["changes"]) == (0, [])
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


def test_status_says_why_nothing_can_be_put_on_record(right: House, start: Callable[..., Running]) -> None:
    status = start(right).ready().status()
    assert status["audit"]["trouble"] is None
    assert not any(line.startswith("audit") for line in lines(status))
    status["audit"] |= {"well": 0.0, "trouble": "/srv/state/audit: No space left on device"}
    (line,) = (line for line in lines(status) if line.startswith("audit"))
    assert line.endswith("so every request is refused: /srv/state/audit: No space left on device")


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


def keys(house: House, *arguments: str) -> int:
    return main(["keys", *arguments, "--config", str(house.config)])


def test_a_key_is_printed_once_with_what_to_paste_and_only_on_standard_output(
    right: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(right, "create", "--user", "anna", "--team", "sales", "--expires", "90d") == 0
    said = capsys.readouterr()
    assert said.err == ""
    (key,) = set(re.findall(r"sk-appliance-[\w-]{43}", said.out))
    assert f'OpenAI(base_url="http://ADDRESS/v1", api_key="{key}")' in said.out
    assert f'Anthropic(base_url="http://ADDRESS", api_key="{key}")' in said.out
    assert "anna, team sales, role user, until 20" in said.out
    assert keys(right, "list") == 0
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("key_", "anna", "sales", "active", "user"))
    assert key not in listed
    secret = key.removeprefix("sk-appliance-")
    assert not [file for file in right.state.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


def test_what_a_key_is_told_to_be_it_is(right: House) -> None:
    free = {"prompt_euros_per_million": 0, "completion_euros_per_million": 0}
    use_cases = {"mail": {}, "night": {"service_class": "batch"}}
    right.write(accounts={"use_cases": use_cases, "prices": {"models": {"chat": free}}})
    made = right.keys(
        "create", "--name", "mail sorter", "--role", "power_user", "--use-case", "mail", "--use-case", "night",
        "--class", "interactive", "--data-class", "confidential", "--expires", "12w", *limits(),
        "--at-limit", "step_down", "--step-down-to", "chat",
    )  # fmt: skip
    (listed,) = right.keys("list")
    assert {**listed, "key": made["key"], "base_url": None} == made
    assert listed["allowance"] == {name: 7 for name, _ in LIMITS} | {"at_limit": "step_down", "step_down_to": "chat"}
    assert (listed["name"], listed["role"], listed["user"]) == ("mail sorter", "power_user", None)
    assert (listed["use_cases"], listed["service_class"]) == (["mail", "night"], "interactive")
    assert listed["data_class"] == "confidential"
    ends, began = (datetime.fromisoformat(listed[name]).timestamp() for name in ("expires", "created"))
    assert ends - began == pytest.approx(12 * 7 * 86_400, abs=2)


def limits() -> list[str]:
    return [word for name, _ in LIMITS for word in (f"--{name.replace('_', '-')}", "7")]


def test_every_limit_of_the_config_is_an_option() -> None:
    assert {name for name, _ in LIMITS} == set(Allowance.model_fields) - {"at_limit", "step_down_to"}


def test_keys_are_listed_by_user_and_team(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(right, "list") == 0
    assert "appliance keys create" in capsys.readouterr().out
    made = [right.keys("create", *of)["id"] for of in (["--user", "anna"], ["--user", "ben", "--team", "sales"])]
    assert [row["id"] for row in right.keys("list", "--user", "anna")] == made[:1]
    assert [row["id"] for row in right.keys("list", "--team", "sales")] == made[1:]
    assert right.keys("list", "--team", "none") == []


def test_a_key_is_rotated_with_an_overlap_and_revoked(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    made = right.keys("create", "--user", "anna")
    rotated = right.keys("rotate", made["id"], "--overlap", "2h", "--expires", "1d")
    assert rotated["key"] != made["key"]
    assert rotated["id"] == made["id"]
    until, ends = (datetime.fromisoformat(rotated[name]).timestamp() for name in ("previous_until", "expires"))
    assert ends - until == pytest.approx(22 * 3600, abs=5)
    assert keys(right, "rotate", made["id"]) == 0
    assert "Old key    opens until" in capsys.readouterr().out
    assert keys(right, "revoke", made["id"]) == 0
    assert "(anna) is revoked" in capsys.readouterr().out
    assert right.keys("list")[0]["state"] == "revoked"
    assert keys(right, "rotate", made["id"]) == 1
    assert "is revoked; create a new key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["revoke", "key_00ff"], "there is no key with the id key_00ff; appliance keys list shows them"),
        (["rotate", "anna"], "there is no key with that id; appliance keys list shows them"),
        (["create", "--use-case", "mail"], "use_cases: mail is none of accounts.use_cases in the config"),
        (["create", "--user", "a/b"], "user: must be 1 to 128 characters that can be seen"),
        (["create", "--name", "\x9b31m"], "name: must hold printable characters only"),
        (["create", "--tokens-per-day", "0"], "allowance.tokens_per_day: "),
        (["create", "--euros-per-day", "nan"], "allowance.euros_per_day: "),
        (["create", "--at-limit", "step_down"], "step_down_to: MODEL go together"),
        (["create", "--at-limit", "step_down", "--step-down-to", "gone"], "there is no model 'gone'"),
        (["create", "--expires", "999999w"], "expires_in_days: "),
        (["rotate", "key_00ff", "--overlap", "9999d"], "overlap_hours: "),
    ],
)
def test_what_keys_can_not_be_is_2_and_names_the_field(
    right: House, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(right, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("appliance: ")
    assert expected in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert right.keys("list") == []


def test_a_key_in_the_place_of_an_id_is_not_repeated(right: House, capsys: pytest.CaptureFixture[str]) -> None:
    key = right.keys("create")["key"]
    assert keys(right, "revoke", key) == 2
    said = capsys.readouterr()
    assert key not in said.err + said.out


def test_a_lost_pepper_is_told_before_a_key_is_made_that_nobody_could_use(
    right: House, capsys: pytest.CaptureFixture[str]
) -> None:
    right.keys("create")
    (right.state / "pepper").unlink()
    assert keys(right, "create") == 2
    assert "restore it from a backup" in capsys.readouterr().err


@as_somebody
def test_what_root_makes_belongs_to_the_user_that_runs_the_appliance(right: House) -> None:
    right.state.mkdir(mode=0o700)
    for path in (right.folder, right.state):
        os.chown(path, SOMEBODY, SOMEBODY)
    right.keys("create")
    made = {file.name: file.stat().st_uid for file in right.state.iterdir()}
    assert {"accounts.db", "pepper"} <= made.keys()
    assert set(made.values()) == {SOMEBODY}
