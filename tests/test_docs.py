"""What the docs say is true: every command in them is run, or at least understood by the program it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from appliance.__main__ import parser
from appliance.errors import BudgetExceeded, HeldBack
from tests.fakes.house import ROOT, House, Running

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
HOST = "changes the host it runs on: docs/deploy.md says where it was run, and with what result"
ELSEWHERE = {
    "docker": "needs a Docker engine; tests/deploy builds the image and starts it",
    "buildah": "tests/deploy builds the image",
    "kubectl": "needs a cluster; tests/deploy holds the manifests to their schemas",
    **dict.fromkeys(("openssl", "sed"), "tests/journeys/test_timestamping.py runs the page's own lines"),
    "nft": "tests/deploy loads the rules in a network of its own",
    **dict.fromkeys(("nsenter", "setpriv"), "looks at an installed service; tests/deploy does so with its own"),
    **dict.fromkeys(("cp", "cut", "mv", "sha256sum", "tar"), "tests/bundle unpacks, installs and upgrades"),
    **dict.fromkeys(("apt", "cat", "debootstrap", "install", "journalctl", "rm", "systemctl", "useradd"), HOST),
}
"""Programs whose commands no test here runs, and why."""


def commands(page: Path) -> Iterator[str]:
    """The commands of a page's `sh` blocks, one each: lines joined, lists taken apart, here-documents left out."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        plain = re.sub(r"<<'?(\w+)'?\n.*?\n\1\n", "\n", block.replace("\\\n", " "), flags=re.DOTALL)
        for line in re.sub(r"(?:^|\s)#.*", "", plain, flags=re.MULTILINE).splitlines():
            yield from (command.strip() for command in re.split(r"&&|;", line) if command.strip())


ALL = [pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("line", ALL)
def test_every_command_is_understood(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    words = [re.sub(r"^\w+=\$\(", "", word) for word in words]  # the command whose output is kept
    match words:
        case ["make", *targets]:
            done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        case ["appliance" | ".venvs/gateway/bin/appliance", *rest]:
            parser().parse_args(rest)
        case [python, "-m", module, *_] if python.endswith("python"):
            subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        case [".ci/run" | "pre-commit" | "export" | "curl" | "cd" | "git" | "benchmarks/peers.sh", *_]:
            pass  # run by CI, by the journeys below, or by whoever compares gateways
        case [program, *_]:
            assert program in ELSEWHERE, f"no test runs `{line}`"
        case []:
            pass  # an assignment for the lines after it


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_refusals_that_docs_explain_are_those_that_there_are() -> None:
    page = (ROOT / "docs" / "accounts.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE)
    assert len(rows) == len(set(rows))
    classes = {
        "401": "Unauthenticated", "403": "Forbidden", "429": "RateLimited|Overloaded",
        "503": "BooksUnavailable|AuditUnavailable",
    }  # fmt: skip
    code = "\n".join(file.read_text() for file in (ROOT / "appliance").rglob("*.py"))
    raised = {
        (status, found)
        for status, names in classes.items()
        for found in re.findall(rf"(?:{names})\((?:[^()]|\([^()]*\))*?code=\"(\w+)\"", code)
    }
    raised -= {("429", "providers_busy")}  # told to nobody: burst.py says `held_back` in its place
    of_their_own = {("429", BudgetExceeded("", retry_after=1).code), ("503", HeldBack("", held="").code)}
    assert set(rows) == raised | of_their_own


def test_a_newcomer_can_swap_a_model_with_the_readmes_own_lines(
    house: House, start: Callable[[House], Running]
) -> None:
    house.config = house.folder / "configs" / "appliance.yaml"
    house.config.parent.mkdir()
    house.settings |= {"state": "../state", "models_folder": "../models"}
    house.settings["engines"]["environment"] = "../engine"
    for card in ("smollm2-135m-int8", "smollm2-135m-bnb4"):
        house.card(card)
    house.serve("chat", "smollm2-135m-int8")
    program = house.folder / ".venvs" / "gateway" / "bin" / "appliance"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m appliance "$@"\n')
    program.chmod(0o755)
    running = start(house).ready()
    lines = [line for line in commands(ROOT / "README.md") if not line.startswith("make")]
    assert lines[-2:] == ["appliance versions", "appliance rollback"]
    house.config.write_text(yaml.safe_dump(yaml.safe_load(house.config.read_text().replace("int8", "bnb4"))))

    def given(lines: list[str]) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=house.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(house.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    given(lines[:-2])
    assert (running.model()["card"], running.model()["state"]) == ("smollm2-135m-bnb4", "ready")
    given([line for line in lines if line.startswith("export") or line in lines[-2:]])
    assert (running.model()["card"], running.model()["state"]) == ("smollm2-135m-int8", "ready")


def test_the_line_to_paste_works_as_pasted(house: House, start: Callable[[House], Running]) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    running = start(house).ready()
    printed = running.printed("curl ")
    line = printed[printed.index("curl ") :].split("\n\n")[0]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert '"role":"assistant"' in done.stdout.replace(" ", ""), line + done.stdout + done.stderr
