"""The SDKs inside the gateway's seal: they work there, and do nothing but ask.

python -m tests.dispatch.cloud.test_sealed FOLDER     be the gateway; prints all that was done at the first requests
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from appliance.dispatch.cloud.cloud import Cloud
from appliance.seal import view
from appliance.seal.gateway import seal_gateway
from tests.dispatch.cloud.parts import Clock, Far, chat, settings
from tests.fakes.house import ROOT
from tests.fakes.providers import provider

NAMES = ("openai", "azure", "anthropic")
WATCHED = ("open", "import", "os.", "subprocess.", "ctypes.", "socket.connect", "socket.getaddrinfo", "socket.bind")
"""Events of the interpreter's audit."""


def sockets(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.sock" for name in NAMES}


async def ask_all(house: Far, done: list[str]) -> None:
    watching = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event.startswith(WATCHED):
            done.append(f"{event} {arguments[:2]}")

    sys.addaudithook(hook)
    for name in NAMES:
        for stream in (True, False):
            ready = house.prepared(chat("Guten Tag", stream=stream), names=[name])
            watching = True
            await ready()
            watching = False
        done.append(house.reply.answer["choices"][0]["message"]["content"])


def main(folder: Path) -> None:
    house = Far(Cloud({name: settings(name) for name in NAMES}, sockets(folder)), Clock(), {}, sockets(folder))
    seal_gateway([*view.interpreter(), folder], best_effort=False)
    before, done = set(sys.modules), list[str]()
    asyncio.run(ask_all(house, done))
    done += [f"imported {module}" for module in sys.modules.keys() - before]
    print(*done, sep="\n")  # noqa: T201 - the answer to whoever started it


def test_a_first_request_opens_its_socket_and_nothing_else() -> None:
    with tempfile.TemporaryDirectory(prefix="sealed-") as folder, ExitStack() as stack:
        for path in sockets(Path(folder)).values():
            stack.enter_context(provider(address=path))
        command = [sys.executable, "-m", "tests.dispatch.cloud.test_sealed", folder]
        told = subprocess.check_output(command, text=True, cwd=ROOT, timeout=100).splitlines()
    assert [line.split(" ")[0] for line in told] == ["socket.connect", "socket.connect", "Guten"] * 3, told


if __name__ == "__main__":
    main(Path(sys.argv[1]))
