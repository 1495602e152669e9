"""A candidate is tried with a part of the requests, compared, and takes over or goes, while people stream."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest

from appliance import config as configuration
from appliance import control
from appliance.__main__ import main
from appliance.rollout.decisions import Decision, Decisions, standing
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"


def ask(prompt: str = "tokens=2", **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], **more}


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def order(house: House, what: str, **more: Any) -> dict[str, Any]:
    (answer,) = control.ask(house.state, "POST", "/rollout", {"do": what, "name": "chat", **more})
    return answer


def rollout(running: Running) -> dict[str, Any]:
    shown: dict[str, Any] = running.status()["rollouts"]
    return shown


def trial(running: Running) -> dict[str, Any]:
    shown: dict[str, Any] = rollout(running)["running"]["chat"]
    return shown


def records(house: House, kind: str) -> list[dict[str, Any]]:
    files = sorted(file for file in (house.state / "audit").glob("*.jsonl") if file.stem.isdigit())
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [each["body"] for each in found if each["kind"] == kind]


@pytest.fixture
def tried(house: House, start: Start) -> Callable[..., Running]:
    """Starts `chat` on the card `one`, with the card `two` as its candidate."""

    def begin(faults: dict[str, Any] | None = None, **settings: Any) -> Running:
        house.card("one")
        house.card("two", faults=faults)
        rollout = {"card": "two", "percent": 50, "by": "request"} | settings
        house.serve("chat", "one", rollout=rollout, batching={"max_sequences": 8})
        running = start(house).ready()
        until(lambda: trial(running)["candidate"]["state"] == "ready")
        return running

    return begin


def test_a_canary_answers_its_share_and_a_weight_holds_from_the_next_request_on(
    house: House, tried: Callable[..., Running]
) -> None:
    running = tried()
    with running.client() as client:
        assert {said(client.post(PATH, json=ask())) for _ in range(40)} == {"one one", "two two"}
        assert "gets 0 %" in order(house, "weight", percent=0)["done"]
        assert {said(client.post(PATH, json=ask())) for _ in range(10)} == {"one one"}
        assert "gets 100 %" in order(house, "weight", percent=100)["done"]
        assert {said(client.post(PATH, json=ask())) for _ in range(10)} == {"two two"}
    shown = trial(running)
    assert shown["candidate"]["requests"] >= 11
    assert shown["candidate"]["requests"] + shown["stable"]["requests"] == 60
    acts = [(act["act"], act["phase"], act.get("percent")) for act in records(house, "act") if "rollout" in act["act"]]
    assert acts == [
        ("rollout.weight", "intent", "0"), ("rollout.weight", "done", None),
        ("rollout.weight", "intent", "100"), ("rollout.weight", "done", None),
    ]  # fmt: skip


async def stream(client: httpx.AsyncClient, stop: asyncio.Event, answers: list[str], user: int) -> None:
    """One user, who asks and reads until told to stop. Whatever fails, fails the test."""
    while not stop.is_set():
        text, done = "", False
        async with client.stream("POST", PATH, json=ask("tokens=6 gap=0.01", stream=True)) as answer:
            assert answer.status_code == 200, (user, await answer.aread())
            async for line in answer.aiter_lines():
                done = done or line == "data: [DONE]"
                if line.startswith("data: {"):
                    (choice,) = json.loads(line[6:])["choices"]
                    text += choice["delta"].get("content", "")
        assert done, user
        answers.append(text)


@pytest.mark.parametrize(("what", "left"), [("promote", "two"), pytest.param("drop", "one", marks=pytest.mark.long)])
async def test_under_32_streaming_users_none_fails_and_no_answer_is_mixed(
    house: House, tried: Callable[..., Running], what: str, left: str
) -> None:
    """An engine has room for 8 of them, so others wait for their turn, and some of those have to move."""
    running = await asyncio.to_thread(tried, mode="ab")  # where nothing but the order decides
    stop, answers = asyncio.Event(), list[str]()
    async with running.async_client() as client:
        users = [asyncio.create_task(stream(client, stop, answers, user)) for user in range(32)]

        async def more(count: int) -> None:
            seen = len(answers)
            while len(answers) < seen + count:
                for user in users:
                    if user.done():
                        user.result()  # raises what made it end
                await asyncio.sleep(0.01)

        await more(64)
        done = await asyncio.to_thread(order, house, what)
        assert "done" in done, done
        await more(96)
        stop.set()
        await asyncio.gather(*users)
    whole = {card: " ".join([card] * 6) for card in ("one", "two")}
    assert set(answers) == set(whole.values())
    assert set(answers[-32:]) == {whole[left]}
    await asyncio.to_thread(until, lambda: len(running.engine_pids()) == 1)
    assert running.model()["card"] == left


def test_a_shadows_answers_are_shown_to_nobody_and_compared(house: House, tried: Callable[..., Running]) -> None:
    running = tried(mode="shadow", percent=100)
    with running.client() as client:
        for number in range(6):
            answer = client.post(PATH, json=ask(f"tokens=4 secret{number}"), headers={"x-request-id": f"req_{number}"})
            assert said(answer) == "one one one one"
            until(lambda: trial(running)["candidate"]["requests"] == number + 1)  # noqa: B023 - at once
        assert said(client.post(PATH, json=ask("say=alike"))) == "alike"
        until(lambda: trial(running)["candidate"]["compared"] == 7)
        shown = trial(running)["candidate"]
        assert shown["agreement"] == pytest.approx(1 / 7, abs=1e-3), "six had no word in common, one had all"
        page = client.get("/metrics").text
    (version,) = {shown["version"]}
    assert f'appliance_copies_total{{model="chat",outcome="answered",version="{version}"}} 7.0' in page
    assert f'appliance_rollout_agreement{{arm="candidate",model="chat",version="{version}"}}' in page
    answered = [line for line in page.splitlines() if line.startswith("appliance_requests_total{")]
    assert all('version="one@' in line for line in answered), "a copy is no request"
    heard = [note["card"] for note in house.heard()]
    assert (heard.count("one"), heard.count("two")) == (7, 7)
    until(lambda: len(records(house, "outcome")) == 7)  # each is written a moment after its answer
    intents, outcomes = records(house, "intent"), records(house, "outcome")
    assert [each["shadow"] for each in intents] == [intents[0]["shadow"]] * 7
    assert intents[0]["shadow"] != intents[0]["weights"]
    assert [each["copied"] for each in outcomes] == [True] * 7
    kept = [file for file in house.state.rglob("*") if file.is_file() and file.name != "heard.jsonl"]
    assert not [file for file in kept if b"secret1" in file.read_bytes()], "no text of a copy stays anywhere"


def test_what_is_copied_is_on_nobodys_account(house: House, tried: Callable[..., Running]) -> None:
    running = tried(mode="shadow", percent=100)
    made = house.keys("create", "--user", "anna")
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": made["key"]}) as client:
        for number in range(3):
            said(client.post(PATH, json=ask()))
            until(lambda: trial(running)["candidate"]["requests"] == number + 1)  # noqa: B023 - at once

        def used() -> Any:
            return client.get("/v1/usage").json()["key"]["today"]

        until(lambda: used()["requests"] == 3)
        assert used()["completion_tokens"] == 6


@pytest.mark.long
def test_copies_in_flight_end_with_the_appliance(house: House, tried: Callable[..., Running]) -> None:
    running = tried(mode="shadow", percent=100)
    (house.folder / "models" / "two" / "weights" / "fault.json").write_text('{"crawl": 60}')
    with running.client() as client:
        said(client.post(PATH, json=ask()))
    until(lambda: [note for note in house.heard() if note["card"] == "two"])
    assert running.stop() == 0
    assert running.engine_pids() == []


def test_a_candidate_within_bounds_takes_over_by_itself_and_still_serves_after_a_kill(
    house: House, tried: Callable[..., Running], start: Start
) -> None:
    running = tried(window_seconds=1, least_requests=10)
    with running.client() as client:
        until(lambda: said(client.post(PATH, json=ask())) and running.model()["card"] == "two")
        assert {said(client.post(PATH, json=ask())) for _ in range(10)} == {"two two"}
    decided = rollout(running)["decided"]["chat"]
    assert (decided["what"], decided["by"]) == ("promoted", "rule")
    assert "write `card: two` into models.chat and remove its `rollout`" in decided["advice"]
    running.process.kill()
    running.process.wait()
    again = start(house).ready()
    assert again.model()["card"] == "two"
    assert len(again.engine_pids()) == 1
    assert rollout(again)["decided"]["chat"]["what"] == "promoted"
    (act, *_) = [act for act in records(house, "act") if act["act"] == "rollout.promote"]
    assert (act["by"]["role"], act["phase"]) == ("appliance", "intent")
    house.serve("chat", "two", batching={"max_sequences": 8})  # as the advice has it
    house.write()
    assert again.apply()["changes"] == []
    assert rollout(again)["decided"] == {}


def test_a_candidate_that_fails_requests_is_dropped_long_before_the_windows_end(
    house: House, tried: Callable[..., Running]
) -> None:
    running = tried()
    faults = house.folder / "models" / "two" / "weights" / "fault.json"
    faults.write_text('{"sick": true}')
    with running.client() as client:
        until(lambda: client.post(PATH, json=ask()).status_code and "chat" in rollout(running)["decided"])
        assert {said(client.post(PATH, json=ask())) for _ in range(10)} == {"one one"}
    decided = rollout(running)["decided"]["chat"]
    assert (decided["what"], decided["by"]) == ("dropped", "rule")
    assert "requests failed" in decided["why"]
    until(lambda: len(running.engine_pids()) == 1)


@pytest.mark.long
def test_an_engine_that_is_killed_three_times_is_dropped_and_nobody_else_notices(
    house: House, tried: Callable[..., Running]
) -> None:
    running = tried(mode="blue-green")
    gone: list[int] = []
    for _ in range(3):
        until(lambda: trial(running)["candidate"]["state"] == "ready")
        (pid,) = until(lambda: [pid for pid in engines_of(running, "two") if pid not in gone])
        os.kill(pid, signal.SIGKILL)
        gone.append(pid)
        until(lambda: not engines_of(running, "two") or engines_of(running, "two")[0] not in gone)
    decided = until(lambda: rollout(running)["decided"].get("chat", {}))
    assert (decided["what"], decided["why"]) == ("dropped", "its engine failed 3 times")
    with running.client() as client:
        assert said(client.post(PATH, json=ask())) == "one one"


def engines_of(running: Running, card: str) -> list[int]:
    """The processes of the engine that has the weights of `card`."""
    mine = running.engine_pids()
    return [pid for pid in mine if f"models/{card}/" in " ".join(psutil.Process(pid).cmdline())]


def test_what_is_decided_of_one_rollout_says_nothing_of_an_edited_one(
    house: House, tried: Callable[..., Running]
) -> None:
    running = tried()
    assert "to make it permanent, remove `rollout` from models.chat" in order(house, "drop")["done"]
    assert "error" in order(house, "promote"), "there is nothing any more to promote"
    assert running.apply()["changes"] == []
    assert len(running.engine_pids()) == 1 or until(lambda: len(running.engine_pids()) == 1)
    house.settings["models"]["chat"]["rollout"]["percent"] = 100
    house.write()
    assert "error" not in running.apply()
    assert trial(running)["percent"] == 100
    with running.client() as client:
        assert {said(client.post(PATH, json=ask())) for _ in range(5)} == {"two two"}
    assert rollout(running)["decided"] == {}


@pytest.mark.parametrize("what", ["promote", pytest.param("drop", marks=pytest.mark.long)])
def test_a_kill_in_the_moment_between_decision_and_deed_ends_in_the_decided_state(
    house: House, tried: Callable[..., Running], start: Start, what: str
) -> None:
    """As on disk in that moment: the decision is written, and the fleet as it was."""
    running = tried(mode="blue-green")
    running.process.kill()
    running.process.wait()
    config = configuration.load(house.config)
    decision = Decision(standing(config.settings)["chat"], f"{what}d".replace("pd", "pped"), "rule", "", 0.0)  # type: ignore[arg-type]
    Decisions(config.state).decide("chat", decision)
    again = start(house).ready()
    assert again.model()["card"] == {"promote": "two", "drop": "one"}[what]
    assert len(again.engine_pids()) == 1
    assert rollout(again)["running"] == {}


def test_answers_are_rated_by_who_asked_and_count_for_their_version(
    house: House, tried: Callable[..., Running]
) -> None:
    running = tried(percent=100, mode="ab")
    anna, ben = (house.keys("create", "--user", name)["key"] for name in ("anna", "ben"))

    def rate(key: str, id_: str, rating: str) -> int:
        body = {"request_id": id_, "rating": rating}
        return httpx.post(f"{running.base_url}/v1/feedback", json=body, headers={"x-api-key": key}).status_code

    asked = [httpx.post(f"{running.base_url}{PATH}", json=ask(), headers={"x-api-key": anna}) for _ in range(3)]
    ids = [answer.headers["x-request-id"] for answer in asked]
    assert [rate(anna, ids[0], "up"), rate(anna, ids[1], "up"), rate(anna, ids[1], "down")] == [204] * 3
    assert [rate(ben, ids[2], "up"), rate(anna, "req_unknown", "up"), rate(anna, ids[2], "great")] == [404, 404, 400]
    shown = trial(running)["candidate"]
    assert (shown["good"], shown["bad"]) == (1, 1)
    with running.client() as client:
        page = client.get("/metrics").text
    assert f'appliance_feedback_total{{model="chat",rating="up",version="{shown["version"]}"}} 2.0' in page


def test_the_command_line_shows_both_and_decides(
    house: House, tried: Callable[..., Running], capsys: pytest.CaptureFixture[str]
) -> None:
    running = tried(mode="blue-green")

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["rollout", *arguments, "--config", str(house.config)])
        told = capsys.readouterr()
        return status, told.out + told.err

    status, shown = run()
    assert status == 0
    assert "chat   blue-green" in shown
    assert "so far: it stands by: appliance rollout promote, or drop" in shown
    status, refusal = run("weight", "chat", "25")
    assert (status, "blue-green gives a candidate all or nothing" in refusal) == (1, True)
    status, done = run("promote", "chat")
    assert (status, "chat: now answered by two@" in done) == (0, True)
    assert running.model()["card"] == "two"
    status, shown = run()
    assert (status, "two: promoted on" in shown) == (0, True)
    assert json.loads(run("--json")[1])["running"] == {}
    for order in ("promote", "drop"):
        status, refusal = run(order, "chat")
        assert (status, "there is no rollout of 'chat' under way" in refusal) == (1, True)
        assert "What was promoted goes back when `rollout` is taken out of models.chat" in refusal
