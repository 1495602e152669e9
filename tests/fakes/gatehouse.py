"""A gate that is not itself: it starts as the real one does, and answers with nonsense.

python -c "from tests.fakes import gatehouse; gatehouse.main('late')" CHANNEL
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any

RELEASED: dict[str, Any] = {
    "data_class": "public", "found": {}, "held": None, "why": "", "providers": ["mistral"], "rule": "", "purpose": "",
    "payload": "", "originals": {}, "ticket": "late",
}  # fmt: skip
_ANSWERS: dict[str, Any] = {
    "another kind of answer": {"hello": 1},
    "no class": {"verdict": {**RELEASED, "data_class": "harmless"}},
    "no kind": {"verdict": {**RELEASED, "found": {"dragon": 1}}},
    "no reason": {"verdict": {**RELEASED, "held": "mood"}},
    "no payload": {"verdict": {**RELEASED, "payload": "!"}},
    "no number of finds": {"verdict": {**RELEASED, "found": {"person": "many"}}},
    "a list": {"verdict": []},
    "another number": {"number": 999, "verdict": RELEASED},
    "no JSON": b"{",
    "no object": b"[]",
    "late": {"verdict": RELEASED},
}
NONSENSE = [name for name in _ANSWERS if name != "late"] + ["too long", "an end"]


def command(answer: str) -> list[str]:
    """Has a gate answer all with that."""
    return ["-c", f"from tests.fakes import gatehouse; gatehouse.main({answer!r})"]


def main(name: str) -> None:
    """Until the gateway ends."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    orders = json.loads(sys.stdin.buffer.raw.readline())  # type: ignore[attr-defined]
    heard = Path(orders["folder"]).parents[2] / "heard"
    child = os.fork()
    if child == 0:
        channel.close()
        os.read(0, 1)  # until the gateway ends
        os._exit(0)
    told = {"holds": [], "missing": [], "public_key": "00" * 32, "gate": child}
    os.write(1, json.dumps(told).encode() + b"\n")
    late: list[int] = []
    while 0 not in (ready := select.select([0, channel], [], [])[0]):
        assert ready
        head = channel.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            break
        frame = json.loads(channel.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL))
        with heard.open("a") as file:
            file.write(json.dumps(frame) + "\n")
        match name, frame:
            case "late", {"do": "drop"}:
                _send(channel, json.dumps({"number": late.pop(), **_ANSWERS[name]}).encode())
            case "late", {"number": int(number)}:
                late.append(number)
            case "too long", _:
                channel.sendall(struct.pack("!I", 2**31))
            case "an end", _:
                break
            case _, {"number": int(number)} if frame["do"] != "drop":
                said = _ANSWERS[name]
                _send(channel, said if isinstance(said, bytes) else json.dumps({"number": number, **said}).encode())
    channel.close()
    os.waitpid(child, 0)


def _send(channel: socket.socket, data: bytes) -> None:
    channel.sendall(struct.pack("!I", len(data)) + data)
