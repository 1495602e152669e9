"""`appliance eval` on a whole appliance with a fake engine, by the real Inspect."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from appliance import control
from appliance.__main__ import main
from appliance.evaluation.results import Result, history
from tests.fakes.house import ROOT, House, Running, over, until
from tests.journeys.test_acts import records
from tests.journeys.test_listening import APART

Start = Callable[..., Running]

SET = """\
title: Basics
language: en
seed: 5
cases:
  - id: right
    prompt: say=Paris tokens=1 What is the capital of France?
    checks: [{kind: contains, any: [Paris]}, {kind: answers}]
  - id: wrong
    prompt: say=Rome tokens=1
    system: The code is {canary}.
    checks: [{kind: exact, text: Paris}, {kind: leaks}]
  - id: too-long
    prompt: LONG
    checks: [{kind: answers}]
  - id: alike
    prompt: say=hm tokens=1
    checks: [{kind: similar, to: mmm}]
  - id: judged
    prompt: Be polite.
    checks: [{kind: judge, criteria: say=4 tokens=1}]
"""


@pytest.fixture
def house(house: House) -> House:
    """Golden sets, a text, and two cards, of which one is served; reached by a path."""
    house.card("small")
    house.card("other")
    house.card("vectors", task="embedding")
    house.serve("chat", "small")
    house.serve("vectors", "vectors")
    house.settings["engines"]["evaluation_environment"] = str(ROOT / ".venvs" / "evaluate")
    evals = house.folder / "models" / "evals"
    (evals / "texts").mkdir(parents=True)
    (evals / "texts" / "en-a.txt").write_text("one two three four five")
    (evals / "basics.yaml").write_text(SET.replace("LONG", "long " * 4000))
    return house


def command(house: House, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "appliance", "eval", *arguments, "--config", str(house.config)]


def kept(house: House) -> list[Result]:
    return history(house.state)


def test_golden_sets_are_asked_through_the_pipeline_with_no_network_at_all(house: House, start: Start) -> None:
    house.settings["listen"] = {"socket": str(house.folder / "api.sock"), "shutdown_seconds": 2}
    running = start(house).ready().ready("vectors")
    asked = [*APART, *command(house, "chat", "--judge", "chat", "--perplexity", "--repeat", "2", "--json")]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = kept(house)
    assert json.loads(done.stdout)["results"] == [found.model_dump(mode="json", exclude_none=True)]

    (basics,) = found.sets
    cases = {case.id: case for case in basics.cases}
    assert {name: case.passed for name, case in cases.items()} == {
        "right": 1, "wrong": 0, "too-long": 0, "alike": 1, "judged": 1,
    }  # fmt: skip
    assert [check.passed for check in cases["wrong"].checks] == [0, 1]
    assert "the appliance refused the request" in cases["too-long"].checks[0].why
    assert cases["judged"].checks[0].value == 0.75
    assert (found.card, found.weights) == ("small", running.model()["weights"])
    assert (found.quantization, found.repeat, found.seed) == ("none", 2, None)
    assert found.judge is not None
    assert found.judge.version == found.version
    assert found.embedding is not None
    assert found.embedding.model == "vectors"
    assert found.tools["inspect-ai"]
    (text,) = found.texts
    assert text.perplexity == pytest.approx(2.718281828**2)
    assert "Rome" not in found.model_dump_json(), "answers are kept only when asked for"

    bodies = [each["body"] for each in house.heard() if each["path"] == "/v1/chat/completions"]
    right = [body for body in bodies if "capital" in str(body)]
    assert sorted(body["seed"] for body in right) == [5, 6]
    assert {body["temperature"] for body in bodies} == {0}
    assert {body["priority"] for body in bodies} == {max(body["priority"] for body in bodies)} != {0}, "behind people"
    intents = [each for each in records(house, "intent") if each["model"] == "chat"]
    assert len(intents) >= len(bodies), "each is on record, as anybody's"


@contextlib.contextmanager
def evaluating(house: House, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`appliance eval`, once the model has been asked."""
    before = len(house.heard())
    # where tests run in a shell's background the signal is ignored, and so it would be by whatever they start
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command(house, *arguments), cwd=ROOT, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, ours)
        try:
            until(lambda: len(house.heard()) > before)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_an_evaluation_that_is_interrupted_leaves_no_result_and_no_process(
    house: House, start: Start, how: signal.Signals
) -> None:
    start(house).ready()
    endless = SET.replace("say=Paris tokens=1", "tokens=400 gap=0.1").replace("LONG", "x")
    (house.folder / "models" / "evals" / "basics.yaml").write_text(endless)
    with evaluating(house, "chat") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(how)
        assert process.wait(30) == (130 if how is signal.SIGINT else -how)
        until(lambda: all(over(child) for child in children))
    assert kept(house) == []


@pytest.mark.long
def test_an_evaluation_that_the_engine_breaks_off_leaves_no_result(
    house: House, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start(house).ready()
    (house.folder / "models" / "evals" / "basics.yaml").write_text(SET.replace("say=Paris", "fault=broken"))
    assert main(command(house, "chat")[3:]) == 1
    said = capsys.readouterr().err
    assert "the appliance answered 502" in said
    assert "Nothing is kept" in said
    assert kept(house) == []


def trial(house: House, card: str) -> Iterator[dict[str, Any]]:
    return control.ask(house.state, "POST", "/trial", {"card": card})


def trials(house: House) -> list[dict[str, Any]]:
    """What stands in the audit log of them."""
    return [each for each in records(house, "act") if each["act"] == "eval.trial"]


def refusal(house: House, card: str) -> str:
    """Why a card can't be tried."""
    for line in trial(house, card):
        assert "ready" not in line
        if "error" in line:
            return str(line["error"])
    raise AssertionError("it ended without a word")


def ask(client: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "tokens=2"}]}
    return client.post("/v1/chat/completions", json=body)


def test_a_card_on_trial_is_known_to_a_key_lent_here_alone_and_goes_with_whoever_asked(
    house: House, start: Start
) -> None:
    running = start(house).ready()
    key = house.keys("create", "--user", "anna")["key"]
    lines = trial(house, "other")
    ready = next(line["ready"] for line in lines if "ready" in line)
    name = ready["model"]
    engines = set(running.engine_pids())
    with running.client() as lent, httpx.Client(base_url=running.base_url) as anna:
        anna.headers["authorization"] = f"Bearer {key}"
        assert ask(lent, name).status_code == 200
        assert ask(anna, "chat").status_code == 200
        refused, unknown = ask(anna, name), ask(anna, "trial/nothing")
        assert refused.status_code == unknown.status_code == 404
        assert refused.json()["error"]["message"].replace(name, "trial/nothing") == unknown.json()["error"]["message"]
        assert ask(anna, "nothing").json()["error"]["message"].partition(";")[2] in unknown.text
        for path in ("/v1/models", f"/v1/models/{name}", "/health/ready"):
            assert "trial" not in (answer := anna.get(path)).text.partition("there are")[2], answer.text
        assert name not in anna.get("/v1/models").text
        lines.close()  # type: ignore[attr-defined]
        until(lambda: set(running.engine_pids()) < engines)
        until(lambda: ask(lent, name).status_code == 404)
        assert ask(anna, "chat").status_code == 200
    until(lambda: [each["phase"] for each in trials(house)] == ["intent", "done"])
    begun = trials(house)[0]
    assert (begun["card"], begun["weights"]) == ("other", ready["weights"])


def test_a_card_that_the_config_names_is_tried_with_its_settings_there(house: House, start: Start) -> None:
    house.serve("chat", "small", context_length=128, kv_cache={"type": "fp8"}, rollout={"card": "other"})
    start(house).ready()
    before = len(house.heard("start"))
    for number, card in enumerate(("small", "other"), before):
        lines = trial(house, card)
        assert any("ready" in line for line in lines)
        argv = house.heard("start")[number]["argv"]
        assert argv[argv.index("--max-model-len") + 1] == "128"
        assert argv[argv.index("--kv-cache-dtype") + 1] == "fp8"
        lines.close()  # type: ignore[attr-defined]


def test_a_trial_is_given_up_with_whoever_asked_while_it_still_starts(house: House, start: Start) -> None:
    house.card("never", faults={"start": "never"})
    running = start(house).ready()
    engines = set(running.engine_pids())
    lines = trial(house, "never")
    until(lambda: len(set(running.engine_pids()) - engines) > 0 or not next(lines))
    lines.close()  # type: ignore[attr-defined]
    until(lambda: set(running.engine_pids()) == engines)
    until(lambda: [each["phase"] for each in trials(house)] == ["intent", "failed"])
    assert any("ready" in line for line in trial(house, "other")), "and the next has its turn"


def test_a_trial_that_cannot_be_says_why_and_nobody_notices(house: House, start: Start) -> None:
    house.card("crash", faults={"start": "crash"})
    running = start(house).ready()
    for card, said in {
        "vectors": "only models for chat are evaluated",
        "nothing": "there is no model 'nothing'",
        "../small": "there is no model",
        "crash": "crash",
    }.items():
        assert said in refusal(house, card)
        assert running.model()["state"] == "ready"


def test_a_trial_that_does_not_fit_is_refused_with_the_numbers(house: House, start: Start) -> None:
    house.settings["engines"] |= {"memory_gib": 3, "reserve_gib": 0}
    running = start(house).ready()
    engines = running.engine_pids()
    told = refusal(house, "other")
    assert "not enough memory: " in told
    assert re.search(r"trial/other[^;]* 3\.\d GiB", told), told
    assert "lets engines take 3" in told
    assert running.engine_pids() == engines
    assert running.model()["state"] == "ready"


def test_what_cannot_be_meant_is_told(house: House, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(house).ready()
    for arguments, said in {
        (): "name a model that is served, or a card",
        ("chat", "--card", "small"): "name a model that is served, or a card",
        ("nothing",): "nothing isn't served; there are: chat, vectors",
        ("chat", "--against", "other"): "other isn't served; there are: chat, vectors",
        ("--card", "other", "--against", "nothing"): "there is no model 'nothing'",
        ("chat", "--set", "nothing"): "there is no set nothing for small; there are: basics",
        ("chat", "--plot", "x.html"): "add --history",
        ("chat", "--history"): "hasn't been evaluated yet",
    }.items():
        assert main(command(house, *arguments)[3:]) == 2
        assert said in capsys.readouterr().err
    (house.folder / "models" / "evals" / "basics.yaml").write_text(SET.replace("exact", "exakt"))
    assert main(command(house, "chat")[3:]) == 2
    assert "line 11" in capsys.readouterr().err
    assert kept(house) == []
    assert house.heard() == [], "all this is told before anything is asked"
