"""A record has one form, whatever it tells; and what has none is refused before it is in the chain."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit.record import Chain, Kind, clean, moment

TEXTS = st.text(st.characters(codec="utf-8"), max_size=50)
NAMES = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, VALUES, max_size=8), st.sampled_from(Kind), st.floats(0, 4e9))
def test_a_line_is_what_rfc_8785_makes_of_it(body: dict[str, Any], kind: Kind, at: float) -> None:
    chain = Chain()
    first, second = chain.append(kind, body, at), chain.append(kind, body, at)
    for seq, line in ((1, first), (2, second)):
        record = json.loads(line)
        assert rfc8785.dumps(record) == line
        assert (record["seq"], record["kind"], record["body"], record["at"]) == (seq, kind, body, moment(at))
    assert json.loads(first)["prev"] == "0" * 64
    assert json.loads(second)["prev"] == hashlib.sha256(first).hexdigest()
    assert (chain.seq, chain.head) == (2, hashlib.sha256(second).hexdigest())


NONE: list[Any] = [0.5, 1e300, float("inf"), 2**53 + 1, -(2**60), "\udfff", b"x", {1: "x"}, {"\U00010000": 1}, {1, 2}]


@pytest.mark.parametrize("value", NONE, ids=repr)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], lambda it: {"deep": [{"er": it}]}])
def test_what_has_no_one_form_leaves_the_chain_as_it_was(value: Any, wrap: Any) -> None:
    chain = Chain()
    chain.append(Kind.ACT, {}, 0)
    before = chain.seq, chain.head
    with pytest.raises(ValueError, match=r"."):
        chain.append(Kind.ACT, {"value": wrap(value)}, 0)
    assert (chain.seq, chain.head) == before


def test_a_body_without_an_end_is_refused() -> None:
    body: dict[str, Any] = {}
    body["self"] = body
    with pytest.raises(ValueError, match=r"."):
        Chain().append(Kind.ACT, body, 0)


def test_a_moment_is_utc_to_the_millisecond() -> None:
    assert moment(1_763_826_611.1239) == "2025-11-22T15:50:11.123Z"
    assert moment(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "cleaned"), [("a", "a"), ("\ud800x", "?x"), ("x" * 300, "x" * 255 + "…"), ("\0\n", "\0\n")]
)
def test_a_clean_text_is_short_and_can_be_written(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    Chain().append(Kind.ACT, {"text": clean(text)}, 0)
