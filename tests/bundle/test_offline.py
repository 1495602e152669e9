"""The whole life without a network: install, serve, swap, test, measure, upgrade, with a witness on the road out.

The bundles are real and large; they are made here, where packages can be had, and used in the house, where every
frame that leaves is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance.bundle import about, sbom
from tests.bundle.conftest import commit, git
from tests.fakes.house import ROOT, until
from tests.fakes.network import Outside

pytestmark = [pytest.mark.long, pytest.mark.engine]

MODELS = ["smollm2-135m-int8", "smollm2-135m-bnb4"]
START = 300.0
CHAT = """\
import json, sys, urllib.request
address, key = sys.argv[1:]
body = {"model": "chat", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 40}
asked = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(),
    {"authorization": f"Bearer {key}", "content-type": "application/json"})
print(json.load(urllib.request.urlopen(asked, timeout=120))["choices"][0]["message"]["content"])
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with room, with a short path, and not below /tmp, which engines see empty."""
    with tempfile.TemporaryDirectory(prefix="bundle-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def write_checkout(folder: Path) -> Path:
    """This checkout as a fresh clone of its own, with the environments and prepared models that are here."""
    for name in ("appliance", "benchmarks", "configs", "docs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for card in (ROOT / "models").glob("*/card.yaml"):
        (folder / "models" / card.parent.name).mkdir(parents=True)
        shutil.copy(card, folder / "models" / card.parent.name)
    for name in MODELS:
        shutil.copytree(ROOT / "models" / name / "weights", folder / "models" / name / "weights")
    (folder / ".venvs").mkdir()
    for name in ("uv", "prepare"):
        (folder / ".venvs" / name).symlink_to(ROOT / ".venvs" / name)
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("/models/*/weights/\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def bundle(checkout: Path, output: Path, *arguments: str) -> Path:
    """`appliance bundle` as an administrator runs it; the archive."""
    python = ROOT / ".venvs" / "gateway" / "bin" / "python"
    subprocess.run(
        [python, "-m", "appliance", "bundle", "--output", output, "--tar", "--models", *MODELS, *arguments],
        cwd=checkout, check=True,
    )  # fmt: skip
    return output.with_name(f"{output.name}.tar")


def unpack(archive: Path, place: Path) -> Path:
    """Unpack `archive`, which goes; the folder in it."""
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    archive.unlink()
    return place / archive.stem


class House:
    """A host that was never on a network, seen from its terminal."""

    def __init__(self, outside: Outside, home: Path) -> None:
        home.mkdir()
        self.outside = outside
        self.environment = {"PATH": os.defpath + ":/usr/sbin:/sbin", "HOME": str(home)}

    def run(self, folder: Path, *command: str, ends: tuple[int, ...] = (0,)) -> str:
        """Run to its end with one of these exit statuses; what it printed."""
        done = self.outside.run(list(command), cwd=folder, env=self.environment, capture_output=True)
        assert done.returncode in ends, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def appliance(self, folder: Path, *arguments: str) -> str:
        """The appliance's own command line."""
        return self.run(folder, ".venvs/gateway/bin/appliance", *arguments)


class Serving:
    """`make serve` in an unpacked bundle."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        self.output = folder.with_name(f"{folder.name}.txt")
        with self.output.open("wb") as output:
            self.process = house.outside.popen(
                ["make", "serve"], cwd=folder, env=house.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output,
            )  # fmt: skip
        until(self._ready, START, every=0.5)

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"the appliance ended:\n{self.output.read_text()}"
        return "✓ ready" in self.output.read_text() and "curl " in self.output.read_text()

    def ask(self, key: str) -> str:
        """The model's answer to a question."""
        address = json.loads(self.house.appliance(self.folder, "status", "--json"))["address"]
        return self.house.run(self.folder, ".venvs/gateway/bin/python", "-c", CHAT, address, key)

    def card(self) -> str:
        """What answers."""
        return str(json.loads(self.house.appliance(self.folder, "status", "--json"))["models"]["chat"]["card"])

    def stop(self) -> None:
        """End it and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def test_it_lives_without_a_network(place: Path) -> None:
    checkout = write_checkout(place / "checkout")
    first = bundle(checkout, place / "a-1")
    version = (checkout / "appliance" / "__init__.py").read_text()
    (checkout / "appliance" / "__init__.py").write_text(version.replace('__version__ = "', '__version__ = "9'))
    commit(checkout)
    arrived = place / "a-2.part" / "offline" / "wheels"
    arrived.mkdir(parents=True)
    for wheel in (place / "a-1" / "offline" / "wheels").iterdir():
        (arrived / wheel.name).hardlink_to(wheel)  # as a run leaves them that was cut off
    second = bundle(checkout, place / "a-2", "--without", "preparation", "--without", "tests")
    bill = (place / "a-1" / sbom.NAME).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    for made in (place / "a-1", place / "a-2", checkout):
        shutil.rmtree(made)

    with Outside(place) as outside:
        outside.control()
        house = House(outside, place / "home")
        old = unpack(first, place)
        house.run(old, "make", "install-offline")
        assert not list((place / "home").iterdir()), "no cache outside the folder"
        serving = Serving(house, old)
        try:
            key = next(word for word in serving.output.read_text().split() if word.startswith("sk-appliance-"))
            assert "Paris" in serving.ask(key)
            config = old / "configs" / "appliance.yaml"
            config.write_text(config.read_text().replace(*MODELS))
            house.appliance(old, "apply")
            assert (serving.card(), "Paris" in serving.ask(key)) == (MODELS[1], True)
            # whether a shared machine meets its objectives is not the question here
            assert " 0 failed" in house.run(old, "make", "bench", "ARGS=--users 1 --seconds 10", ends=(0, 2))
            assert " passed" in house.run(old, "make", "test", "ARGS=tests/test_config.py tests/weights/test_card.py")

            new = unpack(second, place)
            house.run(new, "make", "install-offline")
            shutil.copy(config, new / "configs")
            house.appliance(new, "check-config")
        finally:
            serving.stop()
        (old / "state").rename(new / "state")
        shutil.rmtree(old)
        serving = Serving(house, new)
        try:
            assert (serving.card(), "Paris" in serving.ask(key)) == (MODELS[1], True)
            assert house.appliance(new, "--version").strip() == about.read(new).version.partition("+")[0]
        finally:
            serving.stop()
        outside.control()
        assert outside.sent() == []
