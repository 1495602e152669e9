"""A gateway that was taken over gets nothing started that sees or writes a file beyond what engines always may."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.process import Nursery
from tests.fakes.people import EVERYBODYS, PEOPLE

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
SAYS = "import os, sys; [open(path + '/new', 'w') for path in sys.argv[2:]]; print(os.listdir(sys.argv[1]))"

Said = list[dict[str, Any]]


class World:
    """The folders of an appliance, a daemon's beside them, and a file of its user's."""

    def __init__(self, folder: Path, user: int | None) -> None:
        self.folder, self._user = folder, user
        self.state = folder / "state"
        for name in ("state/logs", "state/run/e1", "state/cache", "state/egress", "models/chat/weights", "daemon"):
            (folder / name).mkdir(parents=True)
        (folder / "models/chat/weights/model").touch()
        (folder / "models/link").symlink_to(folder / "daemon")
        self.victim = folder / "victim"
        self.victim.write_text("precious")
        (folder / "environment/bin").mkdir(parents=True)
        self.python = sys.executable if user is None else str(EVERYBODYS)
        (folder / "environment/bin/python").symlink_to(Path(self.python).resolve())
        self.daemon = socket.socket(socket.AF_UNIX)
        self.daemon.bind(str(folder / "daemon/docker.sock"))
        self.daemon.listen()
        self.daemon.setblocking(False)

    def take(self, *steps: list[Any]) -> list[Said]:
        """What the orders among some steps of a taken-over gateway are answered."""
        command = [self.python, "-m", "tests.fakes.taken_over", str(self.folder)]
        if self._user is not None:
            subprocess.run(["chown", "-hR", f"{self._user}:{self._user}", self.folder], check=True)
            command = ["setpriv", f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups", *command]
        told = json.dumps(steps).replace("FOLDER", str(self.folder))
        done = subprocess.run(command, input=told, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        answers: list[Said] = json.loads(done.stdout)
        return answers


@pytest.fixture(params=PEOPLE)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        made = World(Path(folder), request.param)
        yield made
        made.daemon.close()


def test_what_an_engine_may_have_it_gets(world: World) -> None:
    may = ["FOLDER/models/chat/weights", "FOLDER/state/run/e1", "FOLDER/state/cache"]
    command = ["FOLDER/environment/bin/python", "-I", "-S", "-c", SAYS, *may]
    ((pid, seal, end),) = world.take(["order", {"command": command}])
    assert pid["pid"] > 0
    assert seal["seal"]["missing"] == []
    assert end["exit"] == 0, (world.state / "logs/chat.log").read_text()
    assert (world.state / "logs/chat.log").read_text() == "['model']\n"
    assert all(Path(path.replace("FOLDER", str(world.folder)), "new").exists() for path in may[1:])


CONNECTS = "import socket; socket.socket(socket.AF_UNIX).connect('FOLDER/daemon/docker.sock')"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a daemon's socket to see": ({"readable": ["FOLDER/daemon/docker.sock"]}, "only what lies in FOLDER/models"),
    "its folder to see": ({"readable": ["FOLDER/daemon"]}, "only what lies in FOLDER/models"),
    "a way up": ({"readable": ["FOLDER/models/../daemon"]}, "only what lies in FOLDER/models"),
    "a way up to what begins alike": ({"readable": ["FOLDER/models/chat/../../daemon"]}, "only what lies in"),
    "a link": ({"readable": ["FOLDER/models/link"]}, "symbolic link; put the thing itself there"),
    "what lies behind a link": ({"readable": ["FOLDER/models/link/docker.sock"]}, "symbolic link"),
    "the root": ({"readable": ["/"]}, "only what lies in"),
    "the signing key to see": ({"readable": ["FOLDER/state/egress"]}, "only what lies in"),
    "weights that aren't there": ({"readable": ["FOLDER/models/none"]}, "it has to exist"),
    "a log anywhere": ({"log": "FOLDER/victim"}, "logs only as FOLDER/state/logs/NAME.log"),
    "a log by a way up": ({"log": "FOLDER/state/logs/../../victim.log"}, "logs only as"),
    "a log that is none": ({"log": "FOLDER/state/logs/authorized_keys"}, "logs only as"),
    "a log without a name": ({"log": ""}, "logs only as"),
    "the signing key to write": ({"writable": ["FOLDER/state/egress"]}, "write only to FOLDER/state/cache"),
    "all of the state": ({"writable": ["FOLDER/state"]}, "write only to"),
    "every engine's folder": ({"writable": ["FOLDER/state/run"]}, "write only to"),
    "a folder by a way up": ({"writable": ["FOLDER/state/run/../egress"]}, "write only to"),
    "the models to write": ({"writable": ["FOLDER/models"]}, "write only to"),
    "another program": ({"command": ["/bin/sh", "-c", "true"]}, "runs only FOLDER/environment/bin/python"),
    "another Python of the same": ({"command": ["FOLDER/environment/bin/../bin/python"]}, "runs only"),
    "no command": ({"command": []}, "an order that it can't read"),
    "less than the whole seal": ({"best_effort": True}, "nothing without the whole seal"),
    "a number for a path": ({"readable": [1]}, "an order that it can't read"),
    "a path with an end in it": ({"readable": ["FOLDER/models/chat\0/x"]}, "an order that it can't read"),
    "a path that no file has": ({"readable": ["FOLDER/models/\ud800"]}, "no such name"),
    "words for the environment": ({"env": ["LD_PRELOAD"]}, "an order that it can't read"),
    "an endless grace": ({"grace": float("inf")}, "a grace of 0 to 3600"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_whatever_else_is_asked_for_is_refused_by_name_and_nothing_else_breaks(world: World, what: str) -> None:
    changed, why = REFUSED[what]
    command = ["FOLDER/environment/bin/python", "-I", "-S", "-c", CONNECTS]
    refused, right = world.take(["order", {"command": command} | changed], ["order", {}])
    ((message),) = refused
    assert message["error"].startswith("this nursery ")
    assert why.replace("FOLDER", str(world.folder)) in message["error"]
    assert right[-1]["exit"] == 0
    assert world.victim.read_text() == "precious"
    with pytest.raises(BlockingIOError):
        world.daemon.accept()


PLANTED = {
    "a link": (lambda log, victim: log.symlink_to(victim), "symbolic link"),
    "a link to nothing": (lambda log, victim: log.symlink_to(victim.with_name("new")), "symbolic link"),
    "a second name": (lambda log, victim: log.hardlink_to(victim), "one name only"),
    "a pipe": (lambda log, _: os.mkfifo(log), "No such device"),
    "a folder": (lambda log, _: log.mkdir(), "Is a directory"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_nothing_planted_in_the_place_of_a_log_is_written_to(world: World, what: str) -> None:
    plant, why = PLANTED[what]
    plant(world.state / "logs/planted.log", world.victim)
    refused, right = world.take(["order", {"log": "FOLDER/state/logs/planted.log"}], ["order", {}])
    assert why in refused[0]["error"]
    assert right[-1]["exit"] == 0
    assert world.victim.read_text() == "precious"
    assert not world.victim.with_name("new").exists()


def test_a_folder_swapped_for_a_link_leads_nowhere(world: World) -> None:
    cache, engine, logs = world.take(
        ["rename", "FOLDER/state/cache", "FOLDER/state/old"],
        ["symlink", "FOLDER/state/egress", "FOLDER/state/cache"],
        ["order", {}],
        ["symlink", "FOLDER/daemon", "FOLDER/state/run/e2"],
        ["order", {"writable": ["FOLDER/state/run/e2"]}],
        ["rename", "FOLDER/state/logs", "FOLDER/state/old logs"],
        ["symlink", "FOLDER/daemon", "FOLDER/state/logs"],
        ["order", {"writable": []}],
    )
    assert [message["exit"] for message in cache if "exit" in message] == [125]
    assert any("isn't what it was" in message.get("error", "") for message in cache)
    assert "symbolic link" in engine[0]["error"]
    assert logs[-1]["exit"] == 0
    assert (world.state / "old logs/chat.log").read_text() == "ran\n"
    assert [path.name for path in (world.folder / "daemon").iterdir()] == ["docker.sock"]


def test_models_in_the_state_folder_are_not_shown(world: World) -> None:
    shutil.rmtree(world.folder / "models")
    (world.state / "models/chat/weights").mkdir(parents=True)
    (world.folder / "models").symlink_to(world.state / "models")
    (refused,) = world.take(["order", {"readable": ["FOLDER/state/models/chat/weights"]}])
    assert "nothing of the state folder" in refused[0]["error"]


def test_a_models_folder_that_the_administrator_linked_works(world: World) -> None:
    (world.folder / "models").rename(world.folder / "disk")
    (world.folder / "models").symlink_to("disk")
    (said,) = world.take(["order", {"readable": ["FOLDER/disk/chat/weights"]}])
    assert said[-1]["exit"] == 0


NOISE = ["", "[" * 50_000, "5", "null", '{"id": 1}', '{"id": [], "spawn": {}}', '{"id": 9, "signal": 9}',
         '{"id": 1, "spawn": 5}', '{"id": 1, "signal": "x"}', "\x00"]  # fmt: skip


def test_lines_that_mean_nothing_are_passed_over(world: World) -> None:
    (said,) = world.take(*(["send", line] for line in NOISE), ["order", {}])
    assert said[-1]["exit"] == 0


# Writes to every pipe that another process of its namespace writes to: the prober's, through which it speaks.
FORGES = """
import os, sys
lines = [
    "[" * 20_000, "[" * 50_000, "x" * 1_000_000, "5", "null", '["error"]', '{"error": 5}',
    '{"holds": 1, "missing": [], "evidence": []}', '{"holds": [1], "missing": [], "evidence": []}',
    '{"holds": [], "missing": [], "evidence": [1]}', '{"holds": [], "missing": [], "evidence": [{"thread": []}]}',
    '{"probe": {"tcp4": ["' + "[" * 2_000 + '"]}}', '{"probe": {"x": "' + "\\u00e9" * 16_000 + '"}}',
]
reached = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    for descriptor in os.listdir(f"/proc/{pid}/fd") if int(pid) != os.getpid() else ():
        path = f"/proc/{pid}/fd/{descriptor}"
        flags = open(f"/proc/{pid}/fdinfo/{descriptor}").read().split()[3]
        if os.readlink(path).startswith("pipe:") and int(flags, 8) & os.O_ACCMODE == os.O_WRONLY:
            pipe = os.open(path, os.O_WRONLY)
            for line in lines:
                os.write(pipe, line.encode() + b"\\n")
            reached += 1
print("reached", reached)
"""


async def test_an_engine_that_forges_what_its_prober_says_ends_nothing_but_itself(tmp_path: Path) -> None:
    for name in ("logs", "run", "cache"):
        (tmp_path / name).mkdir()
    nursery = Nursery.start(tmp_path, tmp_path / "models", Path(sys.prefix))
    log = tmp_path / "logs" / "e.log"
    command = [sys.executable, "-I", "-S", "-c"]
    other = await nursery.spawn([*command, "import signal; signal.pause()"], {}, tmp_path / "logs/o.log", [], [])
    forger = await nursery.spawn([*command, FORGES], {}, log, [], [])
    assert await asyncio.wait_for(forger.wait(), PATIENCE) == 0
    assert int(log.read_text().split()[1]) > 0
    assert forger.seal.holds
    third = await nursery.spawn([*command, ""], {}, log, [], [])
    assert await asyncio.wait_for(third.wait(), PATIENCE) == 0
    other.terminate()
    assert await asyncio.wait_for(other.wait(), PATIENCE) == 143
    await nursery.close()
