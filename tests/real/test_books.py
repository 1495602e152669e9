"""The books and the real engine's own counters agree, however requests end."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import openai

from appliance.accounts.store import Store
from tests.fakes.house import until
from tests.real.house import ANSWER, Appliance


def counted(appliance: Appliance) -> tuple[int, int]:
    """Prompt and generated tokens that the engine has computed so far."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=appliance.socket("chat")), timeout=ANSWER) as engine:
        text = engine.get("http://engine/metrics").text

    def value(name: str) -> int:
        return int(sum(float(found) for found in re.findall(rf"^vllm:{name}{{.*}} (\S+)$", text, re.MULTILINE)))

    return value("prompt_tokens_total"), value("generation_tokens_total")


def booked(appliance: Appliance) -> tuple[int, int]:
    """What the books hold of the same model."""
    store = Store.sqlite(appliance.state)
    try:
        rows = [used for _, used in store.usage("2000-01-01", "2999-12-31", per=None, where={"model": "chat"})]
    finally:
        store.close()
    return sum(used.prompt_tokens for used in rows), sum(used.completion_tokens for used in rows)


def difference(after: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]


def begin(appliance: Appliance, gpt: openai.OpenAI) -> tuple[tuple[int, int], tuple[int, int]]:
    """Books and counters just after a request: an idle engine would be asked for a token of its own now and then."""
    before = booked(appliance)
    gpt.completions.create(model="chat", prompt="One", max_tokens=1)
    until(lambda: booked(appliance) != before)
    return booked(appliance), counted(appliance)


def test_answers_in_every_dialect_are_booked_as_the_engine_counted_them(
    appliance: Appliance, gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    until(lambda: appliance.running("chat") == 0, ANSWER)
    books, engine = begin(appliance, gpt)

    def ask(number: int) -> None:
        text = f"Count to {number}, please. Then say the capital of France."
        match number % 4:
            case 0:
                gpt.chat.completions.create(model="chat", messages=[{"role": "user", "content": text}], max_tokens=12)
            case 1:
                stream = gpt.chat.completions.create(
                    model="chat", messages=[{"role": "user", "content": text}], max_tokens=12, stream=True
                )
                assert list(stream)
            case 2:
                gpt.completions.create(model="chat", prompt=[text, text + " Now."], max_tokens=9)
            case _:
                claude.messages.create(model="chat", messages=[{"role": "user", "content": text}], max_tokens=11)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(12)))
    used = difference(counted(appliance), engine)
    assert used[0] > 0
    assert used[1] > 0
    until(lambda: difference(booked(appliance), books) != (0, 0))
    until(lambda: difference(booked(appliance), books) == used)


def test_who_leaves_in_the_middle_has_used_what_the_engine_computed(appliance: Appliance, gpt: openai.OpenAI) -> None:
    until(lambda: appliance.running("chat") == 0, ANSWER)
    books, engine = begin(appliance, gpt)
    stream = gpt.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "Tell me a long story about a river."}],
        max_tokens=2000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    for _, _chunk in zip(range(20), stream, strict=False):
        pass
    stream.close()
    until(lambda: appliance.running("chat") == 0, ANSWER)
    used = difference(counted(appliance), engine)
    until(lambda: difference(booked(appliance), books)[0] == used[0])
    generated = difference(booked(appliance), books)[1]
    assert 18 <= generated <= used[1], "a token on its way when the caller left may lie between them"
    assert used[1] - generated < 20
