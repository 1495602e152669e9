"""A gateway that was taken over: it asks a real nursery for whatever it likes, in its own words.

    python -m tests.fakes.taken_over FOLDER < STEPS-AS-JSON      writes, as JSON, what each order was answered

Needs no package, so that any Python may run it, and with that any user. Steps are `["order", {...}]`, changes to an
order that is right; `["send", text]`, a line as it is; `["rename", path, to]` and `["symlink", target, path]`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from appliance.engines.given import Given
from appliance.engines.nursery import program


class TakenOver:
    """Has a nursery of its own, for the state folder, models and environment in `folder`."""

    def __init__(self, folder: Path) -> None:
        given = Given.open(folder / "state", folder / "models", folder / "environment")
        self._folder = folder
        self._number = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), str(os.getpid()), "required", given.tell()]
            passed = [theirs.fileno(), *given.descriptors]
            self._nursery = subprocess.Popen(program("engines.nursery", *arguments), pass_fds=passed)
        self._told = self._socket.makefile("rb")

    def order(self, changed: dict[str, Any]) -> list[dict[str, Any]]:
        """Order an engine that has all it may have, but for what is `changed`; all that is said of it to its end."""
        self._number += 1
        state = self._folder / "state"
        right = {
            "command": [str(self._folder / "environment/bin/python"), "-I", "-S", "-c", "print('ran')"],
            "env": {},
            "log": str(state / "logs" / "chat.log"),
            "readable": [str(self._folder / "models/chat/weights")],
            "writable": [str(state / "run/e1"), str(state / "cache")],
            "best_effort": False,
            "grace": 1,
        }
        self.send(json.dumps({"id": self._number, "spawn": right | changed}))
        said: list[dict[str, Any]] = []
        while not said or not ("exit" in said[-1] or ("error" in said[-1] and len(said) == 1)):
            line = self._told.readline()
            if not line:
                raise SystemExit("the nursery has ended")
            said.append(json.loads(line))
        return said

    def send(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def close(self) -> None:
        """End the nursery."""
        self._told.close()
        self._socket.close()
        self._nursery.wait()


def main() -> None:
    """Take the steps."""
    gateway, answers = TakenOver(Path(sys.argv[1])), []
    for step, *what in json.load(sys.stdin):
        match step:
            case "order":
                answers.append(gateway.order(*what))
            case "send":
                gateway.send(*what)
            case "rename":
                os.rename(*what)  # noqa: PTH104 - as the step says it
            case "symlink":
                os.symlink(*what)  # noqa: PTH211
    gateway.close()
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
