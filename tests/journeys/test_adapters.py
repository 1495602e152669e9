"""LoRA adapters: models of their own to whoever asks, on the engine of their base."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from appliance import control
from appliance.weights.adapters import adapters
from tests.fakes.house import House, Running, until
from tests.journeys.test_records import pairs, records

Start = Callable[..., Running]
PATH = "/v1/chat/completions"


def ask(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "tokens=2"}], **more}


def says(running: Running, model: str) -> str:
    with running.client() as client:
        answer = client.post(PATH, json=ask(model)).json()
    assert answer["model"] == model
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.fixture
def office(house: House) -> House:
    """`chat` with two adapters; the card `two` has one of them, `three` has none."""
    for card in ("one", "two", "three"):
        house.card(card)
    house.adapter("one", "legal")
    house.adapter("one", "medical")
    house.adapter("two", "legal")
    house.serve("chat", "one", adapters={"chat-legal": "legal", "chat-medical": "medical"})
    return house


def test_each_adapter_is_a_model_beside_its_base_on_one_engine(office: House, start: Start) -> None:
    running = start(office).ready()
    long = {"messages": [{"role": "user", "content": "tokens=inf gap=0.05"}], "max_tokens": 400, "stream": True}
    with running.client() as client:
        listed = client.get("/v1/models").json()["data"]
        assert client.get("/v1/models/chat-legal").json() == listed[1]
        unknown = client.post(PATH, json=ask("legal"))
        with client.stream("POST", PATH, json=long | {"model": "chat-medical"}) as answer:
            pieces = answer.iter_text()
            next(pieces)
            assert running.model()["requests"] == 1
    assert [(each["id"], each.get("parent")) for each in listed] == [
        ("chat", None), ("chat-legal", "chat"), ("chat-medical", "chat"),
    ]  # fmt: skip
    assert (unknown.status_code, "chat-legal" in unknown.json()["error"]["message"]) == (404, True)
    assert [says(running, name) for name in ("chat", "chat-legal", "chat-medical")] == [
        "one one", "one+legal one+legal", "one+medical one+medical",
    ]  # fmt: skip
    assert len(running.engine_pids()) == 1
    gpt = openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=running.key, max_retries=0)
    claude = anthropic.Anthropic(base_url=running.base_url, api_key=running.key, max_retries=0)
    words: Any = ask("")["messages"]
    with gpt, claude:
        chunks = list(gpt.chat.completions.create(model="chat-legal", messages=words, stream=True))
        response = gpt.responses.create(model="chat-legal", input="tokens=1")
        message: Any = claude.messages.create(model="chat-legal", max_tokens=8, messages=words)
        counted = claude.messages.count_tokens(model="chat-legal", messages=words)
        shown = claude.models.list().data
    assert {chunk.model for chunk in chunks} == {"chat-legal"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one+legal one+legal"
    assert (response.model, response.output_text) == ("chat-legal", "one+legal")
    assert (message.model, message.content[0].text) == ("chat-legal", "one+legal one+legal")
    assert counted.input_tokens == 2
    assert [(each.id, each.display_name) for each in shown] == [
        ("chat", "The one model"), ("chat-legal", "The one model, legal"), ("chat-medical", "The one model, medical"),
    ]  # fmt: skip


def test_a_swap_of_the_base_swaps_its_adapters_and_mixes_no_answer(office: House, start: Start) -> None:
    running = start(office).ready()
    answers: list[str] = []

    async def load(model: str, stop: asyncio.Event) -> None:
        async with running.async_client() as client:
            while not stop.is_set():
                answer = await client.post(PATH, json=ask(model))
                answers.append(answer.json()["choices"][0]["message"]["content"])

    async def swap() -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for model in ("chat", "chat-legal") * 4:
                tasks.create_task(load(model, stop))
            office.serve("chat", "two", adapters={"chat-legal": "legal"})
            office.write()
            assert "changes" in await asyncio.to_thread(running.apply)
            seen = len(answers)
            await asyncio.to_thread(until, lambda: len(answers) > seen + 20)
            stop.set()

    asyncio.run(swap())
    assert set(answers) == {"one one", "two two", "one+legal one+legal", "two+legal two+legal"}
    assert says(running, "chat-legal") == "two+legal two+legal"
    with running.client() as client:
        assert client.post(PATH, json=ask("chat-medical")).status_code == 404
    until(lambda: len(running.engine_pids()) == 1)


def test_a_base_without_the_adapter_is_refused_and_so_are_adapters_of_what_answers_nobody(
    office: House, start: Start
) -> None:
    office.card("vectors", task="embedding")
    office.adapter("vectors", "legal")
    running = start(office).ready()
    for name, card, adapters_, why in (
        ("chat", "two", {"chat-medical": "medical"}, "chat-medical: card two has no adapter 'medical'; it has: legal"),
        ("chat", "three", {"chat-legal": "legal"}, "chat-legal: card three has no adapter 'legal'; it has: none"),
        ("chat", "vectors", {"chat-legal": "legal"}, "adapters: only for chat, not for embedding"),
    ):
        office.serve(name, card, adapters=adapters_)
        office.write()
        assert why in str(running.apply())
        assert says(running, "chat-medical") == "one+medical one+medical"


def test_other_weights_of_an_adapter_are_a_swap_and_damaged_ones_are_refused(office: House, start: Start) -> None:
    running = start(office).ready()
    pid = running.model()["pid"]
    folder = office.folder / "models" / "one" / "adapters" / "legal"
    right = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(right[::-1])
    assert "legal" in str(running.apply()["error"])
    assert (running.model()["pid"], says(running, "chat-legal")) == (pid, "one+legal one+legal")
    for file in (*folder.iterdir(),):
        file.unlink()
    folder.rmdir()
    office.adapter("one", "legal", rank=8)
    assert "changes" in running.apply()
    assert running.model()["pid"] != pid
    assert running.apply() == {"changes": []}


def test_a_record_names_the_adapters_weights_and_its_price_is_its_own(office: House, start: Start) -> None:
    free, dear = ({"prompt_euros_per_million": euros, "completion_euros_per_million": 0} for euros in (0, 1000))
    prices = {"chat": free, "chat-legal": dear, "chat-medical": free}
    office.settings["accounts"] = {"prices": {"models": prices}}
    running = start(office).ready()
    found = adapters(office.folder / "models" / "one")["legal"].fingerprint
    assert says(running, "chat") == "one one"
    assert says(running, "chat-legal") == "one+legal one+legal"
    (base, base_end), (legal, legal_end) = until(lambda: len(told := pairs(office)) == 2 and told)
    assert [(each["model"], each.get("adapter")) for each in (base, legal)] == [
        ("chat", None), ("chat-legal", found[:32]),
    ]  # fmt: skip
    assert base["weights"] == legal["weights"]
    assert base_end["nanoeuros"] == 0 < legal_end["nanoeuros"]
    (begun,) = (each["body"] for each in records(office, "act") if each["body"]["act"] == "start")
    assert begun["models"]["chat-legal"] == begun["models"]["chat"] | {"adapter": found}


def test_a_rollout_tries_base_and_adapter_together_and_takes_both_over(house: House, start: Start) -> None:
    for card in ("one", "two"):
        house.adapter(house.card(card), "legal")
    candidate = {"card": "two", "percent": 50, "by": "request", "promote": "manual"}
    house.serve("chat", "one", adapters={"chat-legal": "legal"}, rollout=candidate)
    running = start(house).ready()

    def shown() -> Any:
        return running.status()["rollouts"]["running"]["chat"]

    until(lambda: shown()["candidate"]["state"] == "ready")
    assert {says(running, "chat-legal") for _ in range(20)} == {"one+legal one+legal", "two+legal two+legal"}
    until(lambda: shown()["candidate"]["requests"] + shown()["stable"]["requests"] == 20)
    tuple(control.ask(house.state, "POST", "/rollout", {"do": "promote", "name": "chat"}))
    assert [says(running, name) for name in ("chat", "chat-legal")] == ["two two", "two+legal two+legal"]
