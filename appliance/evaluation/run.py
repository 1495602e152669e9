"""Runs `program.py`, which asks a model the golden examples, and gathers what it tells."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from appliance import plain
from appliance.errors import EvaluationFailed
from appliance.evaluation.checks import JsonSchema, Judge, Similar
from appliance.evaluation.results import Checked, Read, SetResult, Tried
from appliance.evaluation.sets import Case, Set
from appliance.telemetry import SILENT

PROGRAM = Path(__file__).with_name("program.py")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Text:
    """A text whose perplexity is measured; `version` is the SHA-256 of it."""

    name: str
    language: str
    version: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be asked, of whom, and by which way. `key` opens the appliance; it stands in no list of processes."""

    address: str
    key: str = field(repr=False)
    certificate: Path | None
    """The appliance's own, where it serves by TLS."""
    model: str
    sets: Sequence[Set]
    texts: Sequence[Text] = ()
    judge: str | None = None
    embedding: str | None = None
    seed: int | None = None
    """In place of the sets' own."""
    repeat: int = 1
    connections: int = 2
    """Requests at a time at most, so that people at work are not slowed."""
    keep_answers: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a job."""

    sets: tuple[SetResult, ...]
    texts: tuple[Read, ...]
    tools: Mapping[str, str]


def texts_of(models: Path) -> tuple[Text, ...]:
    """The texts in models/evals/texts/, named by language: `de-minutes.txt`."""
    found = []
    for file in sorted((models / "evals" / "texts").glob("*.txt")):
        try:
            raw = plain.read(file, 1_000_000)
        except OSError as cause:
            raise EvaluationFailed(f"{file} can't be read: {cause.strerror}") from cause
        text = raw.decode("utf-8", "replace").strip()
        found.append(Text(file.stem, file.stem.partition("-")[0], hashlib.sha256(raw).hexdigest(), text))
    return tuple(found)


def run(job: Job, environment: Path, progress: Progress) -> Found:
    """Do `job` with the Python of `environment`; what was found.

    Raises `EvaluationFailed` saying why it didn't come to its end; nothing of it is kept then. Interrupted, it ends the
    program first.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise EvaluationFailed(f"{environment} isn't there. Run `make {environment.name}`, which sets it up.")
    asked = {each.name: [case for case in each.cases if _can_be_held(case, job)] for each in job.sets}
    heard: dict[tuple[str, str], list[dict[str, Any]]] = {}
    texts: list[dict[str, Any]] = []
    tools: Mapping[str, str] | None = None
    error: str | None = None
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            # isolated: neither this folder nor the variables of whoever runs the command lead it to other code
            [str(python), "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",  # Inspect reads a file .env of its working directory, or of one above it
            env=_environment(scratch),
        )
        last: deque[str] = deque(maxlen=1)
        errors = threading.Thread(target=_drain, args=(process.stderr, last), daemon=True)
        errors.start()
        try:
            _hand_over(process, job, asked)
            for line in process.stdout or ():
                told = json.loads(line)
                tools, error = told.get("tools", tools), told.get("error", error)
                if "case" in told:
                    heard.setdefault((told["case"]["set"], told["case"]["id"]), []).append(told["case"])
                elif "text" in told:
                    texts.append(told["text"])
                elif "progress" in told:
                    progress(
                        f"{told['progress']}: {told['done']} of {told['of']}" if told["of"] > 1 else told["progress"]
                    )
        except ValueError as cause:
            raise EvaluationFailed("the evaluation's program says what can't be understood") from cause
        finally:
            process.kill()
            process.wait()
            errors.join(5)
    whole = all(len(heard.get((name, case.id), ())) == job.repeat for name, cases in asked.items() for case in cases)
    if error is not None or tools is None or not whole:
        raise EvaluationFailed(
            f"the evaluation broke off: {error or _told(last) or 'it said nothing'}. Nothing is kept."
        )
    return Found(tuple(_result(each, asked[each.name], heard, job) for each in job.sets), _read(texts, job), tools)


def _environment(scratch: str) -> dict[str, str]:
    return {
        "PATH": os.defpath, "HOME": scratch, "TMPDIR": scratch, "XDG_CACHE_HOME": scratch, "XDG_DATA_HOME": scratch,
        "LANG": "C.UTF-8", **SILENT,
    }  # fmt: skip


def _hand_over(process: subprocess.Popen[bytes], job: Job, asked: Mapping[str, Sequence[Case]]) -> None:
    told = {
        "address": job.address, "key": job.key, "certificate": str(job.certificate) if job.certificate else None,
        "model": job.model, "judge": job.judge, "embedding": job.embedding, "judge_seed": job.seed or 0,
        "repeat": job.repeat, "connections": job.connections, "keep_answers": job.keep_answers,
        "sets": [{"name": name, "cases": [_case(case, job.seed) for case in cases]} for name, cases in asked.items()],
        "texts": [{"name": each.name, "text": each.text} for each in job.texts],
    }  # fmt: skip
    stdin = process.stdin
    if stdin is not None:
        try:
            stdin.write(json.dumps(told).encode())
            stdin.close()
        except BrokenPipeError:
            return  # why it ended so early stands in what it wrote


def _case(case: Case, seed: int | None) -> dict[str, Any]:
    schema = next((check.schema_ for check in case.checks if isinstance(check, JsonSchema)), None)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    return {
        "id": case.id,
        "messages": list(case.messages),
        "max_tokens": case.max_tokens,
        "seed": case.seed if seed is None else seed,
        "settings": {"extra_body": {"response_format": form}} if case.json_output else {},
        "checks": [check.model_dump(by_alias=True) for check in case.checks],
    }


def _can_be_held(case: Case, job: Job) -> bool:
    return not any(
        (isinstance(check, Judge) and job.judge is None) or (isinstance(check, Similar) and job.embedding is None)
        for check in case.checks
    )


def _result(
    each: Set, asked: Iterable[Case], heard: Mapping[tuple[str, str], list[dict[str, Any]]], job: Job
) -> SetResult:
    tried = tuple(_tried(case.id, heard[each.name, case.id], job) for case in asked)
    known = {case.id for case in tried}
    left_out = tuple(case.id for case in each.cases if case.id not in known)
    return SetResult(
        name=each.name, title=each.title, language=each.language, version=each.version, cases=tried, left_out=left_out
    )


def _tried(name: str, told: list[dict[str, Any]], job: Job) -> Tried:
    told = sorted(told, key=lambda each: int(each["repetition"]))
    checks = tuple(
        Checked(
            kind=same[0]["kind"],
            value=sum(each["value"] for each in same) / len(same),
            passed=sum(each["passed"] for each in same) / len(same),
            why=next((each["why"] for each in same if not each["passed"]), ""),
        )
        for same in zip(*(each["checks"] for each in told), strict=True)
    )
    passed = sum(all(check["passed"] for check in each["checks"]) for each in told) / len(told)
    answers = tuple(each["answer"] for each in told) if job.keep_answers else None
    return Tried(id=name, passed=passed, checks=checks, answers=answers)


def _read(told: list[dict[str, Any]], job: Job) -> tuple[Read, ...]:
    texts = {each.name: each for each in job.texts}
    return tuple(
        Read(language=texts[each["name"]].language, version=texts[each["name"]].version, **each) for each in told
    )


def _drain(stream: IO[bytes] | None, last: deque[str]) -> None:
    for line in stream or ():
        if text := line.decode(errors="replace").strip():
            last.append(text)


def _told(last: deque[str]) -> str:
    return last[0][:300] if last else ""
