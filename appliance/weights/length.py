"""How much a model can read at once: its config.json knows, and a card may only promise less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.weights.card import Card

_POSITIONS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length",
    "max_target_positions",
)  # fmt: skip
_ALREADY_SCALED = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""Kinds of RoPE scaling whose `max_position_embeddings` is what they reach, as vLLM has it."""


def longest(config: dict[str, Any]) -> int | None:
    """The most tokens that a model with this config.json takes, RoPE scaling included; None where it doesn't say.

    Raises ValueError for figures that can't be.
    """
    inner = config.get("text_config")
    said = config | inner if isinstance(inner, dict) else config
    known = [said[name] for name in _POSITIONS if type(said.get(name)) is int]
    if not known:
        return None
    factor = 1.0
    for scaling in _scalings(said.get("rope_parameters") or said.get("rope_scaling")):
        kind, given = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
        scaled = kind in _ALREADY_SCALED or "gemma3" in str(said.get("model_type"))
        if isinstance(given, int | float) and not scaled:
            factor = given
    try:
        return int(min(known) * factor)
    except (OverflowError, ValueError):
        raise ValueError("its longest context is no number") from None


def _scalings(said: Any) -> Iterator[dict[str, Any]]:
    """One for all layers, or one for each kind of them."""
    if isinstance(said, dict):
        yield said
        yield from (each for each in said.values() if isinstance(each, dict))


def objection(file: Path, card: Card) -> str | None:
    """Why the model with config.json in `file` can't be served as `card` promises, as a sentence; None if it can."""
    try:
        most = longest(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return f"{file} can't be understood; bring the file again."
    if most is None or card.context_length <= most:
        return None
    return (
        f"The card's `context_length: {card.context_length}` is more than the model can read: its config.json says "
        f"{most}. Set `context_length: {most}`, or bring a version whose config.json has RoPE scaling."
    )
