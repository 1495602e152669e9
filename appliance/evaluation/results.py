"""What evaluations found, kept as one file each in state/evaluations/<model>/, written when one has come to its end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError

from appliance import durable, plain
from appliance.errors import EvaluationFailed
from appliance.evaluation.checks import Part
from appliance.evaluation.figures import Interval, difference, wilson

FOLDER = "evaluations"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.json")
_MOST_BYTES = 64 << 20


class Checked(Part):
    """One check of one case: its mean value and the share of repetitions that passed it, and why one did not."""

    kind: str
    value: float
    passed: float
    why: str = ""


class Tried(Part):
    """One case: the share of repetitions in which every check passed. `answers` only where they were to be kept."""

    id: str
    passed: float
    checks: Annotated[tuple[Checked, ...], Field(strict=False)]
    answers: Annotated[tuple[str, ...], Field(strict=False)] | None = None


class SetResult(Part):
    """One golden set. `left_out` are cases whose checks need a model that wasn't there to ask."""

    name: str
    title: str
    language: str
    version: str
    cases: Annotated[tuple[Tried, ...], Field(strict=False)]
    left_out: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def passed(self) -> float:
        """Cases that passed; one that did so in half of its repetitions is half a case."""
        return sum(case.passed for case in self.cases)

    @property
    def share(self) -> Interval:
        """The share of cases that passed."""
        return wilson(self.passed, len(self.cases))


class Read(Part):
    """One text: how surprised the model is by it. Bits per byte compare models with different tokens, too."""

    name: str
    language: str
    version: str
    tokens: int
    perplexity: float
    bits_per_byte: float


class Other(Part):
    """A model that was asked about answers; `prompt` is the SHA-256 of how."""

    model: str
    version: str
    prompt: str = ""


class Result(Part):
    """One evaluation of one model, come to its end. `weights` is the SHA-256 of the record of its weights."""

    format: Literal[1] = 1
    at: str
    model: str
    card: str
    weights: str
    quantization: str
    device: str
    engine: str
    appliance: str
    seed: int | None = None
    repeat: int = 1
    judge: Other | None = None
    embedding: Other | None = None
    tools: dict[str, str]
    sets: Annotated[tuple[SetResult, ...], Field(strict=False)]
    texts: Annotated[tuple[Read, ...], Field(strict=False)] = ()

    @property
    def format_of_weights(self) -> str:
        """The quantization in words."""
        return "not quantized" if self.quantization == "none" else self.quantization

    @property
    def version(self) -> str:
        """Card and weights, as in `appliance status`."""
        return f"{self.card}@{self.weights[:8]}" if self.weights else self.card


class Compared(Part):
    """A set in two results: by how much the first is better, or why that can't be told."""

    name: str
    one: SetResult
    other: SetResult | None
    apart: Interval | None
    why_not: str = ""


def keep(state: Path, result: Result) -> Path:
    """Write `result` durably, as a whole, and return its file. Raises `EvaluationFailed`; then nothing is kept."""
    at = datetime.fromisoformat(result.at)
    folder = state / FOLDER / quote(result.model, safe="")
    file = folder / f"{at:%Y%m%dT%H%M%S.%f}Z.json"
    try:
        (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(file, result.model_dump_json(indent=1, exclude_none=True).encode() + b"\n")
    except OSError as cause:
        raise EvaluationFailed(f"the result can't be kept in {folder}: {cause.strerror or cause}") from cause
    return file


def history(state: Path, model: str | None = None, card: str | None = None) -> list[Result]:
    """What was found of a public name, of a card under whatever name, or of all; oldest first.

    Raises `EvaluationFailed` naming a file that can't be read.
    """
    folders = [quote(model, safe="")] if model is not None else sorted(_names(state / FOLDER))
    found = [_read(file) for folder in folders for file in _files(state / FOLDER / folder)]
    return sorted((each for each in found if card is None or each.card == card), key=lambda each: each.at)


def compare(one: Result, other: Result) -> list[Compared]:
    """Set by set. What was asked or judged in another way is said to be so, and not compared."""
    theirs = {each.name: each for each in other.sets}
    return [_compared(each, theirs.get(each.name), one, other) for each in one.sets]


def _compared(mine: SetResult, theirs: SetResult | None, one: Result, other: Result) -> Compared:
    why_not = ""
    if theirs is None or not theirs.cases or not mine.cases:
        why_not = "wasn't asked"
    elif theirs.version != mine.version:
        why_not = "the set has changed"
    elif (one.seed, one.repeat) != (other.seed, other.repeat):
        why_not = "other seeds or repetitions"
    elif _ids(mine) != _ids(theirs):
        why_not = "other cases were left out"
    elif any(getattr(one, role) != getattr(other, role) for role in _askers(mine)):
        why_not = "another model, or another wording, judged the answers"
    if theirs is None or why_not:
        return Compared(name=mine.name, one=mine, other=theirs, apart=None, why_not=why_not)
    apart = difference([case.passed for case in mine.cases], [case.passed for case in theirs.cases])
    return Compared(name=mine.name, one=mine, other=theirs, apart=apart)


def _askers(of: SetResult) -> set[str]:
    roles = {"judge": "judge", "similar": "embedding"}
    return {roles[check.kind] for case in of.cases for check in case.checks if check.kind in roles}


def _ids(of: SetResult) -> Sequence[str]:
    return [case.id for case in of.cases]


def _names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (each.name for each in folder.iterdir() if each.is_dir())


def _files(folder: Path) -> list[Path]:
    # a draft that a power cut left has another ending
    return sorted(file for file in folder.iterdir() if _NAME.fullmatch(file.name)) if folder.is_dir() else []


def _read(file: Path) -> Result:
    try:
        found = plain.read(file, _MOST_BYTES + 1)
        if len(found) > _MOST_BYTES:
            raise EvaluationFailed(
                f"{file} is over {_MOST_BYTES >> 20} MiB, so no result of an evaluation; move it away"
            )
        return Result.model_validate_json(found)
    except OSError as cause:
        raise EvaluationFailed(f"{file} can't be read: {cause.strerror}") from cause
    except ValidationError as cause:
        where = ".".join(map(str, cause.errors()[0]["loc"]))
        raise EvaluationFailed(f"{file} is no result of an evaluation ({where}); move it away") from None
