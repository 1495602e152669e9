"""A changed config comes into effect while people work; a bad one changes nothing."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from appliance import control
from appliance.versions import Versions
from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.fakes import house as houses
from tests.fakes.house import House, Running, safetensors, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"


def ask(prompt: str = "tokens=3", **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], **more}


def says(running: Running) -> str:
    """The card whose weights answer now."""
    with running.client() as client:
        text: str = client.post(PATH, json=ask("tokens=1")).json()["choices"][0]["message"]["content"]
    return text


@pytest.fixture
def running(house: House, start: Start) -> Running:
    """`chat` is answered by the card `one`; there are other cards to change to."""
    house.card("one")
    house.card("two")
    house.card("three", faults={"slow": 0.5})
    house.card("crash", faults={"start": "crash"})
    house.card("vectors", task="embedding")
    house.serve("chat", "one")
    return start(house).ready()


async def test_under_constant_load_a_swap_fails_no_request_and_mixes_no_answer(house: House, running: Running) -> None:
    stop = asyncio.Event()
    answers: list[str] = []

    async def load(client: httpx.AsyncClient, number: int) -> None:
        while not stop.is_set():
            if number % 2:
                answer = await client.post(PATH, json=ask("tokens=5 gap=0.01"))
                answers.append(answer.json()["choices"][0]["message"]["content"])
                continue
            text, done = "", False
            async with client.stream("POST", PATH, json=ask("tokens=5 gap=0.01", stream=True)) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    done = done or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        (choice,) = json.loads(line[6:])["choices"]
                        text += choice["delta"].get("content", "")
            assert done
            answers.append(text)

    async with running.async_client() as client:
        tasks = [asyncio.create_task(load(client, number)) for number in range(8)]
        for card in ("two", "three", "one"):
            house.serve("chat", card)
            house.write()
            applied = await asyncio.to_thread(running.apply)
            assert applied == {"changes": [f"chat: now answered by {card}"]}
            seen = len(answers)
            while len(answers) < seen + 20:
                for task in tasks:
                    if task.done():
                        task.result()  # raises what made it end
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*tasks)
    assert {" ".join([card] * 5) for card in ("one", "two", "three")} == set(answers)
    assert answers[-8:] == ["one one one one one"] * 8
    until(lambda: len(running.engine_pids()) == 1)


def test_an_engine_that_is_replaced_finishes_what_it_was_asked(house: House, running: Running) -> None:
    with running.client() as client, client.stream("POST", PATH, json=ask("tokens=80 gap=0.1", stream=True)) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        house.serve("chat", "two")
        house.write()
        running.apply()
        assert says(running) == "two"
        assert len(running.engine_pids()) == 2
        text += "".join(pieces)
    assert text.count("one") == 80
    assert text.endswith("data: [DONE]\n\n")
    until(lambda: len(running.engine_pids()) == 1)


def test_an_engine_that_is_replaced_does_not_drain_for_ever(house: House, start: Start) -> None:
    house.card("one")
    house.card("two")
    house.serve("chat", "one", drain_seconds=0.3)
    running = start(house).ready()
    with (
        running.client() as client,
        client.stream("POST", PATH, json=ask("tokens=inf gap=0.05", stream=True)) as answer,
    ):
        pieces = answer.iter_text()
        text = next(pieces)
        house.serve("chat", "two")
        house.write()
        running.apply()
        text += "".join(pieces)
    assert "[DONE]" not in text
    assert '"error"' in text
    until(lambda: len(running.engine_pids()) == 1)


Change = Callable[[House, str], None]


def _serve(card: str, **settings: Any) -> Change:
    return lambda house, _: house.serve("chat", card, **settings)


def _remove(file: str) -> Change:
    def change(house: House, case: str) -> None:
        house.serve("chat", house.card(case))
        (house.folder / "models" / case / file).unlink()

    return change


def _alter(file: str) -> Change:
    def change(house: House, case: str) -> None:
        house.serve("chat", house.card(case))
        path = house.folder / "models" / case / file
        path.write_bytes(path.read_bytes()[::-1])

    return change


def _forge(file: str, holds: bytes) -> Change:
    """Put a file beside the prepared ones, and into their record."""

    def change(house: House, case: str) -> None:
        house.serve("chat", house.card(case))
        folder = house.folder / "models" / case
        (folder / "weights" / file).write_bytes(holds)
        manifest.write(folder / "weights", load_card(folder), {})

    return change


def _ask_for_code(house: House, case: str) -> None:
    house.serve("chat", house.card(case))
    with (house.folder / "models" / case / "card.yaml").open("a") as card:
        card.write("trust_remote_code: true\n")


def _set(section: str, **values: Any) -> Change:
    return lambda house, _: house.settings.__setitem__(section, house.settings.get(section, {}) | values)


BAD: list[tuple[str, Change, str]] = [
    ("an engine that crashes", _serve("crash"), "the checkpoint is not what the configuration says"),
    ("an engine that never starts", _serve("never", startup_seconds=0.5), "no answer within startup_seconds"),
    ("an engine that starts but never answers", _serve("mute", startup_seconds=1), "no answer within startup_seconds"),
    ("a card that is not there", _serve("nowhere"), "there is no model 'nowhere'; there are: crash, mute"),
    ("a slip in a card's name", _serve("crsh"), "models.chat.card: there is no model 'crsh'; did you mean 'crash'?"),
    (
        "a candidate for something else",
        _serve("one", rollout={"card": "vectors"}),
        "models.chat.rollout.card: is a card for embedding, and one is one for chat",
    ),
    ("a context over the card's", _serve("two", context_length=4096), "is over the card's 512"),
    ("a missing file", _remove("weights/model.safetensors"), "model.safetensors is missing"),
    ("another checksum", _alter("weights/model.safetensors"), "its checksum differs"),
    ("a pickle as safetensors", _forge("model.safetensors", pickle.dumps([1])), "model.safetensors is a pickle"),
    ("code beside the weights", _forge("modeling.py", b"import os"), "modeling.py is no file of a model"),
    ("a config with code", _forge("config.json", b'{"auto_map": {"AutoModel": "x.Y"}}'), "code by `auto_map`"),
    ("a card that asks for code", _ask_for_code, "`trust_remote_code` isn't offered: code that comes with a model is"),
    ("weights that were never prepared", _remove("weights/manifest.json"), "isn't prepared"),
    ("a broken card", _alter("card.yaml"), "card.yaml"),
    ("an unknown setting", _serve("two", batch=1), "models.chat.batch: unknown setting; did you mean `batching`?"),
    ("another port", _set("listen", port=1), "listen: changes only with a restart"),
    ("another seal", _set("egress", seal="best-effort"), "egress: changes only with a restart"),
    ("another class", _set("privacy", floor="personal"), "privacy: changes only with a restart"),
    ("another limit of the server itself", _set("limits", connections=7), "change only with a restart"),
    (
        "another state folder",
        lambda house, _: house.settings.__setitem__("state", "elsewhere"),
        "state: changes only with a restart",
    ),
    (
        "a new endpoint",
        lambda house, _: house.settings["models"].__setitem__("far", {"endpoint": "http://127.0.0.1:9"}),
        "restart it to add or change an endpoint",
    ),
    (
        "another environment",
        _set("engines", environment="elsewhere"),
        "engines.environment: changes only with a restart",
    ),
    (
        "another store",
        _set(
            "accounts",
            store={"postgresql": {"host": "10.0.0.1", "database": "d", "user": "u"}, "pepper": "env.PEPPER"},
        ),
        "accounts.store: changes only with a restart",
    ),
    (
        "an identity provider",
        _set("accounts", identity={"issuer": "x", "audience": "y", "keys_url": "https://login.house.test/keys"}),
        "accounts.identity.keys_url: changes only with a restart",
    ),
]


@pytest.fixture(scope="module")
def steady() -> Iterator[Running]:
    """An appliance that every bad config of the list is tried on, one after the other."""
    for house in houses.house():
        for name, faults in {"one": {}, "two": {}, "crash": {"start": "crash"}}.items():
            house.card(name, faults=faults)
        house.card("never", faults={"start": "never"})
        house.card("mute", faults={"start": "mute"})
        house.card("vectors", task="embedding")
        house.serve("chat", "one")
        house.write()
        running = Running(house).ready()
        yield running
        running.stop()


@pytest.mark.parametrize(("case", "change", "expected"), BAD, ids=[case.replace(" ", "-") for case, *_ in BAD])
def test_a_bad_config_changes_nothing(steady: Running, case: str, change: Change, expected: str) -> None:
    house, before = steady.house, steady.model()
    good = copy.deepcopy(house.settings)
    change(house, case.replace(" ", "-"))
    house.write()
    refusal = steady.apply()["error"]
    house.settings = good
    assert expected in refusal
    assert steady.model() | {"trouble": None} == before | {"trouble": None}
    assert says(steady) == "one"
    until(lambda: len(steady.engine_pids()) == 1)


def test_a_good_config_after_a_bad_one_is_taken(house: House, running: Running) -> None:
    house.serve("chat", "crash")
    house.write()
    assert "error" in running.apply()
    house.serve("chat", "two")
    house.write()
    assert running.apply() == {"changes": ["chat: now answered by two"]}
    assert says(running) == "two"


def test_the_same_config_again_starts_nothing(house: House, running: Running) -> None:
    before = running.model()
    assert running.apply() == {"changes": []}
    assert running.model() == before
    assert len(house.heard("start")) == 1


def test_models_come_and_go(house: House, running: Running) -> None:
    house.serve("vectors", "vectors")
    house.write()
    assert running.apply() == {"changes": ["vectors: now answered by vectors"]}
    with running.client() as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chat", "vectors"]
        assert client.post("/v1/embeddings", json={"model": "vectors", "input": "x"}).status_code == 200
        del house.settings["models"]["vectors"]
        house.write()
        assert running.apply() == {"changes": ["vectors: no longer served"]}
        assert client.post("/v1/embeddings", json={"model": "vectors", "input": "x"}).status_code == 404
    until(lambda: len(running.engine_pids()) == 1)


def test_limits_are_taken_over_at_once(house: House, running: Running) -> None:
    with running.client() as client:
        assert client.post(PATH, json=ask(n=2)).status_code == 200
        house.write(limits={"choices": 1})
        assert running.apply() == {"changes": ["limits: taken over"]}
        assert client.post(PATH, json=ask(n=2)).status_code == 400


def test_another_backoff_is_taken_over_without_a_new_engine(house: House, running: Running) -> None:
    house.settings["engines"]["restart_backoff_seconds"] = 0.2
    house.write()
    assert running.apply() == {"changes": ["engines: taken over"]}
    assert len(house.heard("start")) == 1


def test_new_weights_under_the_same_name_are_another_model(house: House, running: Running) -> None:
    folder = house.folder / "models" / "one"
    (folder / "weights" / "model.safetensors").write_bytes(safetensors(b"new"))
    assert "checksum differs" in running.apply()["error"]
    manifest.write(folder / "weights", load_card(folder), {})
    assert running.apply() == {"changes": ["chat: now answered by one"]}
    assert len(house.heard("start")) == 2


def test_a_hangup_signal_applies_too(house: House, running: Running) -> None:
    house.serve("chat", "two")
    house.write()
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.model()["card"] == "two" and running.model()["state"] == "ready")
    house.serve("chat", "crash")
    house.write()
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "SIGHUP: nothing was changed" in (house.state / "logs" / "appliance.log").read_text())
    assert says(running) == "two"


def test_two_applies_at_once_end_in_one_state(house: House, running: Running) -> None:
    house.serve("chat", "three")
    house.write()
    ends: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: ends.append(running.apply())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, ends)) == ["{'changes': ['chat: now answered by three']}", "{'changes': []}"]
    assert says(running) == "three"
    until(lambda: len(running.engine_pids()) == 1)


def test_an_apply_that_waits_for_another_reads_the_file_as_it_is_then(house: House, running: Running) -> None:
    house.serve("chat", "three")
    house.write()
    first = control.ask(house.state, "POST", "/apply")
    until(lambda: "starting" in next(first).get("progress", ""))
    house.serve("chat", "two")
    house.write()
    *told, last = control.ask(house.state, "POST", "/apply")
    assert told[0]["progress"].startswith("another apply is under way")
    assert list(first)[-1] == {"changes": ["chat: now answered by three"]}, "each is told what it did"
    assert last == {"changes": ["chat: now answered by two"]}
    assert says(running) == "two"
    assert [version.number for version in Versions(house.state / "configs").all()] == [1, 2, 3]


def test_an_apply_goes_on_when_its_terminal_is_closed(house: House, running: Running) -> None:
    house.serve("chat", "three")
    house.write()
    lines = control.ask(house.state, "POST", "/apply")
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    until(lambda: running.model()["card"] == "three" and running.model()["state"] == "ready")
    assert says(running) == "three"
