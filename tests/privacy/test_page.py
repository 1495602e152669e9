"""docs/privacy.md says what the code does: its tables are the code's own, and its examples come out of the gate."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import config
from appliance.core import DataClass
from appliance.privacy.asked import Asked, Explanation
from appliance.privacy.detect.detector import Detector
from appliance.privacy.gate import Gate
from appliance.privacy.here import Here
from appliance.privacy.kinds import STEMS, TREATMENTS, Kind
from appliance.privacy.restore import Restorer
from appliance.privacy.verdict import Held
from tests.fakes.house import ROOT

PAGE = (ROOT / "docs" / "privacy.md").read_text()
EXAMPLES = list(zip(
    *(re.findall(rf"^```text {name}\n(.*?)\n?```$", PAGE, re.MULTILINE | re.DOTALL)
      for name in ("asked", "sent", "answered", "shown")),
    strict=True,
))  # fmt: skip


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without heads."""
    lines = re.findall(r"^\|(.*)\|$", section(title), re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if line.strip().startswith(("`", "x"))]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """Those that the page shows."""
    file: Path = tmp_path_factory.mktemp("page") / "appliance.yaml"
    shown = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    file.write_text("models:\n  chat:\n    card: tiny\n" + shown[0])
    return config.load(file).settings


@pytest.fixture(scope="module")
def gate(settings: config.Settings) -> Gate:
    privacy = settings.privacy
    detect = Here(Detector(privacy.detectors, []))
    return Gate(privacy, settings.egress.providers, detect, Ed25519PrivateKey.generate())


async def explained(gate: Gate, text: str, use_case: str | None, floor: DataClass) -> Explanation:
    payload = json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}]}).encode()
    return await gate.explain(Asked("chat", payload, floor, use_case, 60))


@pytest.mark.parametrize(("asked", "sent", "answered", "shown"), EXAMPLES)
async def test_the_examples_are_what_happens(gate: Gate, asked: str, sent: str, answered: str, shown: str) -> None:
    verdict = (await explained(gate, asked, "letters", DataClass.PERSONAL)).verdict
    assert verdict.held is None, verdict.why
    assert json.loads(verdict.payload)["messages"][0]["content"] == sent
    restorer = Restorer(verdict.originals)
    assert restorer.feed("0", answered) + restorer.finish("0") == shown


async def test_the_example_config_does_what_the_page_says(gate: Gate, settings: config.Settings) -> None:
    assert settings.bursts
    letter = EXAMPLES[0][0]
    verdict = (await explained(gate, letter, None, settings.privacy.floor)).verdict
    assert (verdict.held, verdict.data_class) == (Held.POLICY, DataClass.PERSONAL)
    verdict = (await explained(gate, letter, "payroll", DataClass.PERSONAL)).verdict
    assert verdict.held is Held.POLICY
    verdict = (await explained(gate, letter, "letters", DataClass.PERSONAL)).verdict
    assert (verdict.held, verdict.providers) == (None, ("mistral",))


def test_every_kind_is_there_with_what_becomes_of_it() -> None:
    told = {}
    for kinds, _, becomes, counts_as in rows("What is found, and what becomes of it"):
        stem = re.search(r"`(\w+)_001`", becomes)
        for kind in re.findall(r"`(\w+)`", kinds):
            assert kind not in told
            told[kind] = stem and stem[1], counts_as.strip("`")
    assert told == {
        kind.value: (None if kind is Kind.SECRET else treatment.stem, treatment.raises.value)
        for kind, treatment in TREATMENTS.items()
    }


def test_every_reason_to_stay_is_there() -> None:
    code = (ROOT / "appliance" / "burst.py").read_text()
    others = re.findall(r'self\._held\(\w+, \w+, "(\w+)"', code)
    assert others
    assert [cells[0].strip("`") for cells in rows("Why a request stays") if cells[0] != "`x-appliance-held`"] == [
        *Held, *others,
    ]  # fmt: skip


def test_every_header_is_there() -> None:
    files = ("burst.py", "pipeline.py", "errors.py")
    code = "".join((ROOT / "appliance" / file).read_text() for file in files)
    told = set(re.findall(r"`(x-appliance-[a-z-]+)`", "".join(cells[0] for cells in rows("What an app sees"))))
    assert told == set(re.findall(r'b"(x-appliance-[a-z-]+)"', code)) - {"x-appliance-stepped-down-from"}
    admission = (ROOT / "appliance" / "api" / "admission.py").read_text()
    asked = re.findall(r"`(X-[A-Za-z-]+): \w+`", section("What an app sees"))
    assert {name.lower() for name in asked} == set(re.findall(r'b"(x-[a-z-]+)"', admission)) - {"x-api-key"}


def test_no_placeholder_on_the_page_has_a_stem_that_there_is_not() -> None:
    assert set(re.findall(r"\b([A-Z][a-z]+)_001", PAGE)) <= set(STEMS)


def test_nothing_is_called_anonymous() -> None:
    for word in re.findall(r"\b\w*[Aa]nonym\w*", PAGE):
        assert word in ("anonymous", "anonymized"), word
    assert PAGE.count("anonymous") == PAGE.count('never "anonymous"')
