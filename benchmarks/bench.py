"""Does the appliance hold its objectives? People who chat, simulated by Locust, against a running appliance.

    python -m benchmarks.bench --config configs/appliance.yaml
    python -m benchmarks.bench --config configs/appliance.yaml --users 32 --seconds 300
    APPLIANCE_KEY=sk-... python -m benchmarks.bench --address https://10.0.0.5:8000

Takes the appliance that runs on the config, or starts one and stops it afterwards. Every request is held against
`objectives` of the config; a failed one has missed. Writes report.html (one file, loads nothing) and report.json
into results/bench-<time>/.

exit status:
  0 objectives met    1 missed    2 wrong config or command line    3 no appliance can be reached
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance import config as configuration
from appliance.config import Config, LocalModel
from appliance.errors import Invalid, NotRunning
from appliance.weights.card import load_card
from benchmarks import report, serving, setting
from benchmarks.measured import Measured, Verdict, judge
from benchmarks.terminal import command_line, say, show

MET, MISSED, WRONG_INPUT, NOT_RUNNING = 0, 1, 2, 3
_GRACE_SECONDS = 120
"""How long requests under way at the end of the run may still take."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who chats, and for how long. The same `seed` says the same again."""

    model: str
    users: int
    seconds: float
    think_seconds: float
    seed: int


class WrongInput(Exception):
    """The config or the command line is wrong; the message says how."""


def check(address: str, key: str, model: str, ca: Path | None) -> None:
    """Raises `NotRunning` when nothing answers at `address`, `WrongInput` when it won't serve this run."""
    # never by way of a proxy: what is measured is in the house
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    )
    asked = urllib.request.Request(f"{address}/v1/models", headers={"authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with opener.open(asked, timeout=10) as answer:
            names = [each["id"] for each in json.load(answer)["data"]]
    except urllib.error.HTTPError as refusal:
        if refusal.code in (401, 403):
            raise WrongInput(f"{address} refuses the key; give one with --key or APPLIANCE_KEY") from refusal
        raise NotRunning(f"{address} answers with status {refusal.code}") from refusal
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise NotRunning(f"no appliance answers at {address}: {failure}") from failure
    if model not in names:
        raise WrongInput(f"there is no model {model!r} at {address}; there are {', '.join(names)}")


def run(address: str, key: str, scenario: Scenario, ca: Path | None) -> list[Measured]:
    """Let the users chat; return every request. Raises `RuntimeError` when Locust itself fails."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        records, log = Path(name) / "records", Path(name) / "log"
        records.touch()
        command = [
            sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("locustfile.py")),
            "--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0",
            "--host", address, "--users", str(scenario.users), "--spawn-rate", str(scenario.users),
            "--run-time", f"{scenario.seconds:.0f}s", "--stop-timeout", str(_GRACE_SECONDS),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "CHAT_KEY": key,
            "CHAT_MODEL": scenario.model,
            "CHAT_RECORDS": str(records),
            "CHAT_SEED": str(scenario.seed),
            "CHAT_THINK": str(scenario.think_seconds),
            "CHAT_CA": str(ca.resolve()) if ca else "",
        }
        with log.open("wb") as output:
            locust = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _watch(locust, records, scenario)
        finally:
            locust.kill()
            locust.wait()
        if locust.returncode:
            raise RuntimeError(f"Locust ended with status {locust.returncode}:\n{log.read_text()[-2000:]}")
        return sorted(_read(records), key=lambda each: each.started)


def _watch(locust: subprocess.Popen[bytes], records: Path, scenario: Scenario) -> None:
    began = time.monotonic()
    while True:
        try:
            locust.wait(min(5.0, scenario.seconds))
            return
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - began
            requests = list(_read(records))
            failed = sum(bool(each.error) for each in requests)
            tokens = sum(each.tokens for each in requests)
            say(
                f"  {min(passed, scenario.seconds):3.0f} of {scenario.seconds:.0f} s: {len(requests)} requests"
                f"{f', {failed} FAILED' if failed else ''}, {tokens / passed:.0f} tokens/s"
            )
            if passed > scenario.seconds + 2 * _GRACE_SECONDS:
                raise RuntimeError("Locust does not come to an end") from None


def _read(records: Path) -> Iterator[Measured]:
    for line in records.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield Measured(**json.loads(line))


@contextlib.contextmanager
def _target(options: argparse.Namespace, config: Config) -> Iterator[tuple[str, str]]:
    if options.address is None:
        with serving.appliance(config) as running:
            yield running.address, options.key or running.key
    else:
        key = options.key or os.environ.get("APPLIANCE_KEY")
        if not key:
            raise WrongInput("--address needs a key: --key KEY, or APPLIANCE_KEY in the environment")
        yield options.address.rstrip("/"), key


def bench(options: argparse.Namespace) -> Verdict:
    """Measure, judge and write the report. Raises `Invalid`, `WrongInput` or `NotRunning`."""
    config = configuration.load(options.config)
    objectives = config.settings.objectives
    scenario = Scenario(
        options.model or _first_chat_model(config), options.users, options.seconds, options.think, options.seed
    )
    with _target(options, config) as (address, key):
        check(address, key, scenario.model, options.ca)
        say(f"{scenario.users} users chat with {scenario.model} at {address} for {scenario.seconds:.0f} s")
        measured = run(address, key, scenario, options.ca)
    verdict = judge(measured, objectives)
    folder = options.results / time.strftime("bench-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    content = {
        "met": verdict.met,
        "verdict": verdict.as_json(),
        "objectives": objectives.model_dump(),
        "scenario": asdict(scenario),
        "setting": setting.describe("locust", "fastapi", "uvicorn", "uvloop"),
        "model": _card(config, scenario.model),
        "config": config.file.read_text(),
        "requests": [asdict(each) | {"missed": each.missed(objectives)} for each in measured],
    }
    (folder / "report.json").write_text(json.dumps(content, indent=1, ensure_ascii=False))
    (folder / "report.html").write_text(report.page(content, verdict, objectives, measured))
    show(report.in_words(verdict, objectives))
    say(f"report: {folder / 'report.html'}")
    return verdict


def _first_chat_model(config: Config) -> str:
    for name, model in config.settings.models.items():
        task = load_card(config.models_folder / model.card).task if isinstance(model, LocalModel) else model.task
        if task == "chat":
            return name
    raise WrongInput(f"{config.file} serves no chat model")


def _card(config: Config, name: str) -> dict[str, Any]:
    model = config.settings.models.get(name)
    if not isinstance(model, LocalModel):
        return {"name": name, "card": "", "text": ""}
    file = config.models_folder / model.card / "card.yaml"
    return {"name": name, "card": model.card, "text": file.read_text() if file.exists() else ""}


def _parser() -> argparse.ArgumentParser:
    parser = command_line("bench", __doc__)
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    add("--users", type=int, default=8, help="people who chat at the same time (default: %(default)s)")
    add("--seconds", type=float, default=60, help="how long they go on asking (default: %(default)s)")
    add("--think", type=float, default=2, help="mean thinking time in seconds (default: %(default)s)")
    add("--seed", type=int, default=1, help="the same number says the same again (default: %(default)s)")
    add("--model", help="name as apps send it (default: the config's first chat model)")
    add("--address", metavar="URL", help="measure the appliance there instead of the config's own")
    add("--key", help="its API key; better in the environment, as APPLIANCE_KEY")
    add("--ca", type=Path, metavar="FILE", help="PEM file of the authority that signed the address' certificate")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.users < 1 or options.seconds < 1 or options.think < 0:
        parser.error("--users and --seconds must be at least 1, --think at least 0")
    if options.address and not options.address.startswith(("http://", "https://")):
        parser.error("--address must begin with http:// or https://")

    try:
        return MET if bench(options).met else MISSED
    except (Invalid, WrongInput) as problem:
        say(f"bench: {problem}")
        return WRONG_INPUT
    except NotRunning as problem:
        say(f"bench: {problem}")
        return NOT_RUNNING


if __name__ == "__main__":
    sys.exit(main())
