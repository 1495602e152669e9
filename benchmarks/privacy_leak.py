"""The public `pii-leak-benchmark` against the appliance: does personal data reach its provider, and does it come back?

    python -m benchmarks.privacy_leak
    python -m benchmarks.privacy_leak --iterations 20
    python -m benchmarks.privacy_leak --profile pii-secrets-v1

The benchmark is not ours. It sends a mail address, a social security number and a card's number that it makes up, is
itself the provider that the appliance asks, and looks at every byte of what arrives there. First it is run without a
gateway, which has to come out as LEAK; then through an appliance whose engine never gets ready, so that each request
leaves the house masked. All of it happens in a network of its own, in which the benchmark's provider has a public name
and a certificate, as the appliance wants it; nothing leaves this machine. What that provider says gets one thing more:
the reason why an answer ended (`finish_reason`), which it leaves out and OpenAI doesn't.

With --profile pii-secrets-v1 it also sends keys of clouds. Such requests stay in the house, with 503, by design: the
benchmark then says NOT MEASURED, as nothing reaches it.

Saves privacy-leak.json and privacy-leak.md under results/. Exit status: 0 nothing leaked and all came back, 1 not,
2 wrong command line, or it could not be measured. Needs Linux and the development environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import setting
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

if TYPE_CHECKING:
    from tests.fakes.certificates import Pair

_NAME, _ADDRESS = "at-9-9-9-9.test", "9.9.9.9"
"""What the tests' own name server answers for the one is the other."""
_CAPTURE = ("127.0.0.1", 8765)
"""Where the benchmark listens."""
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
"""The benchmark's provider leaves out why an answer ended. Without that the appliance takes it for cut off."""
_KEY = "sk-provider"
_LEAKED = 1


@contextmanager
def relaying(
    pair: Pair, address: tuple[str, int] = (_ADDRESS, 443), capture: tuple[str, int] = _CAPTURE
) -> Iterator[tuple[str, int]]:
    """Takes TLS off at `address` and hands everything on to `capture`, which speaks plain HTTP. Where it listens."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    listening = socket.create_server(address)
    done, finish = socket.socketpair()

    async def relay() -> None:
        done.setblocking(False)  # noqa: FBT003 - no keyword there
        async with await asyncio.start_server(partial(_pass, capture), sock=listening, ssl=tls):
            await asyncio.get_running_loop().sock_recv(done, 1)

    thread = threading.Thread(target=asyncio.run, args=(relay(),))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        finish.close()
        thread.join()
        done.close()


async def _pass(capture: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inside, outside = await asyncio.open_connection(*capture)
    there = asyncio.ensure_future(_ask(reader, outside))
    with suppress(OSError):
        async for line in inside:
            writer.write(FINISH + line if line.startswith(b"data: [DONE]") else line)
            await writer.drain()
    there.cancel()
    for side in (writer, outside):
        side.close()


async def _ask(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)


def _sections(folder: Path, authority: Path) -> dict[str, Any]:
    (folder / "provider-key").write_text(_KEY)
    model = {"model": "capture", "context_length": 100_000, "prompt_euros_per_million": 1.0,
             "completion_euros_per_million": 1.0}  # fmt: skip
    provider = {
        "url": f"https://{_NAME}/v1", "region": "eu", "agreement": "DPA 1", "key": f"file:{folder / 'provider-key'}",
        "ca": str(authority), "models": {"chat": model},
    }  # fmt: skip
    rule = {"may": "pseudonymise", "purpose": "measuring", "regions": ["eu"], "agreement": "DPA 1"}
    return {
        "egress": {
            "mode": "anonymized", "providers": {"capture": provider}, "euros_per_day": 50.0,
            "verify": {"every_seconds": 0},
        },
        "privacy": {"policy": [{"data_class": each, **rule} for each in ("internal", "confidential", "personal")]},
    }  # fmt: skip


def _measured(target: str, options: argparse.Namespace, report: Path, **environment: str) -> tuple[int, str]:
    command = [
        str(Path(sys.executable).with_name("pii-leak-benchmark")), "selfcheck", "--target-base-url", target,
        "--target-model", "chat", "--profile", options.profile, "--iterations", str(options.iterations),
        "--timeout-seconds", "120", "--json-out", str(report),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return done.returncode, (done.stdout + done.stderr).partition("  Full report:")[0].strip("\n")


def _inside(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, once this process is in a network of its own."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    from tests.fakes.certificates import Authority
    from tests.fakes.house import Running, house

    with IPRoute() as link:
        link.addr("add", index=1, address=_ADDRESS, prefixlen=32)
    for home in house():
        report = home.folder / "report.json"
        control, said = _measured("capture://self", options, report)
        if control != _LEAKED:
            return {"status": 2, "said": f"without a gateway it should have leaked, so nothing is known:\n{said}"}
        authority = Authority(home.folder)
        pair = authority.issue(_NAME)
        home.card("tiny", faults={"start": "never"})
        home.serve("chat", "tiny", startup_seconds=600)
        home.write(**_sections(home.folder, authority.file))
        with relaying(pair):
            running = Running(home)
            try:
                status, said = _measured(
                    f"{running.base_url}/v1", options, report, CONFORMANCE_TARGET_API_KEY=running.key
                )
                metrics = running.client(trust_env=False).get("/metrics").text
            finally:
                running.stop()
        log = running.output.read_text()[-4000:]
        return {
            "status": status, "said": said, "report": json.loads(report.read_text()), "log": log,
            "metrics": [line for line in metrics.splitlines() if "cloud" in line or "privacy" in line],
        }  # fmt: skip
    raise AssertionError("no house")


def _options() -> argparse.ArgumentParser:
    parser = command_line("privacy_leak", __doc__)
    parser.add_argument("--iterations", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--profile", choices=["pii-v1", "pii-secrets-v1"], default="pii-v1", help="(default: %(default)s)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _options().parse_args(arguments)
    if options.inside:
        show(json.dumps(_inside(options)))
        return 0
    from tests.fakes.network import Outside

    say("  an appliance is started and measured; this takes a minute")
    with tempfile.TemporaryDirectory() as folder, Outside(Path(folder)) as outside:
        command = [sys.executable, "-m", "benchmarks.privacy_leak", "--inside", "--profile", options.profile,
                   "--iterations", str(options.iterations)]  # fmt: skip
        done = outside.run(command, stdout=subprocess.PIPE)
        if done.returncode:
            say("it could not be measured; what went wrong is said above")
            return 2
        told = json.loads(done.stdout)
        addressed = {(packet.destination, packet.port) for packet in outside.sent() if packet.kind == "tcp"}
    show(told["said"])
    about = setting.describe("pii-leak-benchmark", "openai")
    keep(options.results, "privacy-leak", {"setting": about, **told}, f"```text\n{told['said']}\n```")
    if addressed:
        say(f"something else was connected to: {sorted(addressed)}")
        return 1
    say(f"saved under {options.results}/: privacy-leak.json, privacy-leak.md")
    return int(told["status"])


if __name__ == "__main__":
    sys.exit(main())
