"""The house keeps its own rules: formatted, linted, typed, layered, and documented as it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from appliance import reference
from appliance.config import load

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
CONFIGS = [file for file in (ROOT / "configs").rglob("appliance*.yaml") if "kubernetes" not in file.parts]


@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check"], ["ruff", "check"], ["mypy"], ["lint-imports"]],
    ids=" ".join,
)
def test_a_reviewer_would_find_nothing_that_a_tool_finds(command: list[str]) -> None:
    done = subprocess.run([TOOLS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["schema", "configuration", "api"])
def test_pages_derived_from_the_code_are_current(page: str) -> None:
    file = ROOT / ("configs/appliance.schema.json" if page == "schema" else f"docs/{page}.md")
    assert file.read_text() == getattr(reference, page)(), "run `make reference`"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_shipped_config_is_valid_by_code_and_by_schema(file: Path) -> None:
    load(file)
    schema = json.loads((ROOT / "configs/appliance.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(file.read_text()))


def test_every_setting_has_a_sentence_of_its_own() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert len(rows) > 80
    assert [name for name, meaning in rows if meaning in ("", "None")] == []
