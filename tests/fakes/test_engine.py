"""The fake engine speaks as the real one did when it was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import GENERATE

RECORDED = Path(__file__).parents[1] / "dispatch" / "recorded"
CASES = dict(zip(("chat", "completion", "responses", "messages"), GENERATE.items(), strict=True))


def events(data: bytes) -> list[tuple[str | None, Any]]:
    """Name and data of each event."""
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, _, rest = frame.rpartition("data: ")
        found.append((name.strip() or None, rest if rest == "[DONE]" else json.loads(rest)))
    return found


def shapes(data: bytes) -> set[tuple[str | None, frozenset[str]]]:
    """Each kind of event with its top-level keys."""
    return {(name, frozenset(value) if isinstance(value, dict) else frozenset([value])) for name, value in events(data)}


@pytest.mark.parametrize("dialect", CASES)
def test_its_streams_have_the_events_of_recorded_ones(dialect: str) -> None:
    path, kind = CASES[dialect]
    body = {"n": 2 if dialect == "chat" else 1, "prompt": "x", "stream_options": {"include_usage": True}}
    answer = kind(body, "chat", 31)
    data = b"".join(answer.head())
    for number in range(4):
        for index in range(answer.choices):
            data += b"".join(answer.token(index, "word", last=number == 3))
    data += b"".join(answer.tail())
    real = (RECORDED / f"{dialect}.sse").read_bytes()
    assert shapes(data) == shapes(real), path
    names = [name for name, _ in events(real)]
    assert [name for name, _ in events(data)] == names
    assert data.endswith(b"data: [DONE]\n\n") == real.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("dialect", CASES)
def test_it_dies_as_the_real_one_died(dialect: str) -> None:
    _, kind = CASES[dialect]
    said = b"".join(kind({"prompt": "x"}, "chat", 31).killed())
    real = (RECORDED / f"{dialect}.killed.sse").read_bytes()
    if said:
        assert shapes(said) <= shapes(real)
        assert events(said)[-1][0] == events(real)[-1][0]
    else:
        assert b"error" not in real
        assert b"completed" not in real
