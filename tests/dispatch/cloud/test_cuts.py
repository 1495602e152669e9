"""However the bytes of a stream are cut on their way, the caller gets the same answer, with the originals in it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dispatch.cloud.parts import CHAT, MESSAGE, ORIGINALS, Far, chat, far, message
from tests.fakes.dialects import Play

TEXT = "Lieber Klient_001, Grüße an Firma\\_001s und Klient 001 🙂. Klient_0"
CALLS = [("call_1", "look_up", '{"who": "Klient_001 \\u00fc", "Firma_001": "Ort_009"}'), ("call_2", "ask", "{}")]
NAMES = ("anthropic", "openai")
PERSON, FIRM = ORIGINALS["Klient_001"], ORIGINALS["Firma_001"]


async def answered(house: Far, name: str, dialect: str, play: Play) -> tuple[str, list[Any]]:
    house.doubles[name].say(play)
    payload, operation = (chat(stream=True), CHAT) if dialect == "chat" else (message(stream=True), MESSAGE)
    await house.ask(payload, operation, names=[name])
    assert house.reply.ended
    return house.reply.text, [json.loads(each or "{}") for each in house.reply.arguments]


def right(text: str, arguments: list[Any]) -> None:
    assert text == f"Lieber {PERSON}, Grüße an {FIRM}s und {PERSON} 🙂. Klient_0"
    assert arguments[0] == {"who": f"{PERSON} ü", FIRM: "Ort_009"}


@pytest.mark.parametrize("dialect", ["chat", "message"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_each_byte_by_itself(name: str, dialect: str, size: int) -> None:
    with far(name) as house:
        right(*await answered(house, name, dialect, Play(TEXT, CALLS, size=size, cuts=range(10**5))))


def test_cut_anywhere() -> None:
    with far(*NAMES) as house, asyncio.Runner() as runner:

        @settings(max_examples=60, deadline=None)
        @given(
            st.sampled_from(NAMES), st.sampled_from(["chat", "message"]), st.integers(1, 30),
            st.sets(st.integers(1, 12_000), max_size=6),
        )  # fmt: skip
        def same(name: str, dialect: str, size: int, cuts: set[int]) -> None:
            right(*runner.run(answered(house, name, dialect, Play(TEXT, CALLS, size=size, cuts=sorted(cuts)))))

        same()


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_cut_before_every_byte(name: str) -> None:
    with far(name) as house, asyncio.Runner() as runner:
        cut, length = 0, 1
        while cut < length:
            right(*runner.run(answered(house, name, "chat", Play(TEXT, CALLS, size=40, cuts=[cut]))))
            cut, length = cut + 1, house.doubles[name].streamed


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_that_ends_before_any_event_but_the_last_has_failed(name: str) -> None:
    with far(name, "azure") as house:
        for events in range(6):
            house.doubles[name].say(Play("Guten Tag", events=events))
            house.clock.now += 3600
            assert (await house.ask(chat())).provider == "azure"
