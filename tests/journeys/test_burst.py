"""A request on its way out: the house can't answer, what is personal is masked, a provider answers, names come back.

All of it in a network of its own: two providers that keep every byte, official SDKs as callers, and a witness on the
road that nothing else leaves.

python -m tests.journeys.test_burst COUNT     be the house, with COUNT personal documents; prints what came of it
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import anthropic
import httpx
import openai
import pytest

from appliance.privacy.kinds import Kind
from appliance.privacy.verdict import Held
from benchmarks.documents import Document, documents
from tests.fakes import house as houses
from tests.fakes.certificates import Authority
from tests.fakes.house import House, Running, until
from tests.fakes.network import Outside
from tests.fakes.providers import Double, Play, provider

NAMES = {"far": "at-9-9-9-9.test", "near": "at-9-9-9-8.test"}
ADDRESSES = {"far": "9.9.9.9", "near": "9.9.9.8"}
KEYS = {"far": "sk-far-1", "near": "sk-near-1"}
RULE = {"may": "pseudonymise", "purpose": "Letters to clients", "regions": ["eu"], "agreement": "DPA 2026-7"}
LETTER = (
    "Schreibe einen Brief an Frau Dr. Anna Kowalczyk-Weber, Lindenstraße 12, 80331 München. "
    "Ihre IBAN DE89 3704 0044 0532 0130 00 ist uns bekannt. Frau Kowalczyk-Webers Rechnung ist offen."
)
ORIGINALS = ["Kowalczyk", "Lindenstra", "0532 0130", "DE89"]
ESCAPED = "Was bedeutet Klient_001 in dem Brief an Anna Kowalczyk?"
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"client": {"type": "string"}}}},
}


def sections(folder: Path, authority: Authority) -> dict[str, Any]:
    """A provider of each dialect, and a policy that lets what is personal out pseudonymised."""
    model = {"context_length": 100_000, "prompt_euros_per_million": 1.0, "completion_euros_per_million": 2.0}
    providers = {}
    for name, api in (("far", "openai"), ("near", "anthropic")):
        (folder / name).write_text(KEYS[name])
        providers[name] = {
            "url": f"https://{NAMES[name]}{'/v1' if api == 'openai' else ''}", "api": api, "region": "eu",
            "agreement": "DPA 2026-7", "key": f"file:{folder / name}", "ca": str(authority.file),
            "models": {"chat": {"model": f"{name}-large", **model}},
        }  # fmt: skip
    return {
        "egress": {
            "mode": "anonymized", "providers": providers, "euros_per_day": 50.0, "verify": {"every_seconds": 0},
        },
        "privacy": {
            "floor": "internal",
            "detectors": {"seconds": 60},
            "policy": [{"data_class": each, **RULE} for each in ("internal", "confidential", "personal")],
        },
    }  # fmt: skip


class Scenes:
    """Everything that happens, each scene by its name."""

    def __init__(self, running: Running, doubles: dict[str, Double]) -> None:
        self.running, self.doubles = running, doubles
        self.http = running.client(trust_env=False)
        own = {"api_key": running.key, "max_retries": 0}
        self.openai = openai.OpenAI(base_url=f"{running.base_url}/v1", **own)
        self.anthropic = anthropic.Anthropic(base_url=running.base_url, **own)
        self.told: dict[str, Any] = {}

    def ask(self, content: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        body = {"model": "chat", "messages": [{"role": "user", "content": content}], "max_tokens": 200, **more}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def tell(self, name: str, answer: httpx.Response) -> None:
        own = {key: value for key, value in answer.headers.items() if key.startswith("x-appliance-")}
        self.told[name] = {"status": answer.status_code, "headers": own, "body": answer.json()}

    def away(self) -> None:
        """Let the engine end, and none start again."""
        self.running.house.break_engines(start="never")
        for pid in self.running.engine_pids():
            subprocess.run(["kill", "-9", str(pid)], check=False)
        until(lambda: self.running.model()["state"] != "ready")

    def play(self) -> None:
        self.tell("here", self.ask(LETTER))
        self.told["heard while the house could answer"] = sum(len(each.heard) for each in self.doubles.values())
        self._busy()
        self.away()
        self.tell("there", self.ask(LETTER))
        with self.openai.chat.completions.with_streaming_response.create(
            model="chat", messages=[{"role": "user", "content": LETTER}], stream=True, max_tokens=200
        ) as raw:  # fmt: skip
            self.told["stream route"] = raw.headers["x-appliance-route"]
            self.told["stream"] = "".join(
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in raw.iter_lines()
                if line.startswith("data: {") and json.loads(line[6:])["choices"]
            )
        message = self.anthropic.messages.create(
            model="chat", max_tokens=200, messages=[{"role": "user", "content": LETTER}]
        )
        self.told["message"] = [block.text for block in message.content if block.type == "text"]
        self._tools()
        self.doubles["far"].say(Play(status=529), Play(status=529))
        before = len(self.doubles["near"].heard)
        self.tell("fallback", self.ask(LETTER))
        self.told["fallback heard"] = len(self.doubles["near"].heard) - before
        self.tell("stays", self.ask(LETTER, {"x-route": "local"}))
        self.tell("secret", self.ask("Mein Passwort ist Sommer2024! und die IBAN ist DE89370400440532013000."))
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        self.tell("picture", self.ask([{"type": "text", "text": "Was ist das?"}, picture]))  # type: ignore[arg-type]
        self.tell("escaped", self.ask(ESCAPED))

    def _busy(self) -> None:
        """One request is on the engine and one waits for it: there is no room for a third."""
        body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=inf gap=0.05"}], "stream": True}
        with contextlib.ExitStack() as stack:
            engaged = stack.enter_context(self.running.client(trust_env=False))
            stack.enter_context(engaged.stream("POST", "/v1/chat/completions", json=body))
            waiting = stack.enter_context(self.running.client(trust_env=False))
            pool = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(waiting.close)
            task = pool.submit(self._refused, waiting, body)
            waits = re.compile(r"^appliance_queue_length\{.*\} 1\.0$", re.MULTILINE)
            until(lambda: waits.search(self.http.get("/metrics").text) is not None)
            self.tell("busy", self.ask(LETTER))
            engaged.close()
            task.result()

    def _refused(self, client: httpx.Client, body: dict[str, Any]) -> None:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            self.told["who waited"] = answer.status_code

    def _tools(self) -> None:
        self.doubles["far"].say(Play(tools=[("call_1", "look_up", '{"client": "Klient_001"}')]))
        called = self.openai.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "Suche Frau Kowalczyk-Weber."}], tools=[TOOL]  # type: ignore[list-item]
        )  # fmt: skip
        (call,) = called.choices[0].message.tool_calls or []
        self.told["arguments"] = json.loads(call.function.arguments)  # type: ignore[union-attr]

    def documents(self, count: int) -> None:
        """Personal documents, all of which want to leave; what came of each."""
        outcomes: Counter[str] = Counter()
        leaks, sent = [], 0
        for document in documents(count):
            for double in self.doubles.values():
                double.received.clear()
            answer = self.http.post("/v1/chat/completions", json={**document.payload, "max_tokens": 200})
            outcomes[answer.headers.get("x-appliance-held") or str(answer.status_code)] += 1
            received = b"".join(double.received for double in self.doubles.values())
            sent += received.count(b"POST ")
            leaks += [f"{document.id}: {each}" for each in leaked(received, document)]
        self.told |= {"outcomes": outcomes, "leaks": leaks, "sent": sent}


def leaked(received: bytes, document: Document) -> list[str]:
    """Originals of `document` that stand in what a provider received, in whatever form. No code of the gate's."""
    views = _views(received.replace(b"\r\ncontent-length", b""))
    bare = re.sub(r"[^0-9a-z]", "", views[0])
    found = []
    for kind, value in document.originals:
        plain = _folded(value)
        digits = re.sub(r"[^0-9a-z]", "", plain)
        word = re.compile(rf"(?<!\w){re.escape(plain)}(?!\w)" if len(plain) < 5 else re.escape(plain))
        number = len(digits) >= 7 and any(each.isdigit() for each in digits)
        if any(word.search(view) for view in views) or (number and digits in bare):
            found.append(f"{kind}: {value}")
    return found


def _views(received: bytes) -> list[str]:
    text = received.decode("utf-8", "replace")
    unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    views = [unescaped, unquote_plus(unescaped), html.unescape(unescaped)]
    for run in re.findall(r"[A-Za-z0-9+/_-]{8,}", text):
        for offset in range(4):
            padded = run[offset:].replace("-", "+").replace("_", "/")
            views.append(base64.b64decode(padded + "A" * (-len(padded) % 4)).decode("utf-8", "ignore"))
    return [_folded(view) for view in views]


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(each for each in plain if not unicodedata.combining(each) and each.isprintable())


def happen(count: int) -> dict[str, Any]:
    from pyroute2 import IPRoute

    with IPRoute() as link:
        for address in ADDRESSES.values():
            link.addr("add", index=1, address=address, prefixlen=32)
    for house in houses.house():
        authority = Authority(house.folder)
        pairs = {name: authority.issue(each) for name, each in NAMES.items()}
        with (
            contextlib.ExitStack() as stack,
            provider(pairs["far"], (ADDRESSES["far"], 443), KEYS["far"]) as far,
            provider(pairs["near"], (ADDRESSES["near"], 443), KEYS["near"]) as near,
        ):
            doubles = {"far": far, "near": near}
            house.card("tiny")
            house.serve("chat", "tiny", batching={"max_sequences": 1})
            house.write(queue={"longest": 1}, **sections(house.folder, authority))
            running = Running(house).ready()
            stack.callback(running.process.kill)
            scenes = Scenes(running, doubles)
            scenes.play()
            told = scenes.told
            for name, double in doubles.items():
                told[f"{name} received"] = double.received.decode("utf-8", "replace")
            scenes.documents(count)
            told["verify"] = run(running, "egress", "verify", "--json")
            told["status"] = run(running, "status")["said"]
            told["metrics"] = running.client(trust_env=False).get("/metrics").text
            told["exit"] = running.stop()
            told["log"] = list(records(house))
            told["output"] = running.output.read_text()
            told["logs"] = "".join(file.read_text() for file in (house.state / "logs").glob("*.log"))
            return told
    raise AssertionError


def run(running: Running, *command: str) -> Any:
    arguments = [sys.executable, "-m", "appliance", *command, "--config", str(running.house.config)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    return {"status": done.returncode, "said": done.stdout[-4000:] + done.stderr[-2000:]}


def records(house: House) -> Iterator[dict[str, Any]]:
    for file in sorted((house.state / "audit").glob("0*.jsonl")):
        yield from map(json.loads, file.read_text().splitlines())


COUNT = 60
MISSED = 0.005
"""Share of what leaves in which a name or number may be left that no detector knew, such as Teufel: docs/privacy.md. Of
so few documents as in the normal run that is none."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _seen(tmp_path_factory.mktemp("street"), COUNT)


def _seen(folder: Path, count: int) -> dict[str, Any]:
    with Outside(folder) as outside:
        command = [sys.executable, "-m", "tests.journeys.test_burst", str(count)]
        done = outside.run(command, stdout=subprocess.PIPE, timeout=3000, check=True)
        outside.control()
        told: dict[str, Any] = json.loads(done.stdout)
        packets = outside.sent()
        return told | {"packets": [str(each) for each in packets if each.kind != "udp"],
                       "names": sorted({each.name for each in packets if each.name})}  # fmt: skip


def test_what_the_house_can_answer_is_answered_here_and_nobody_outside_hears_of_it(seen: dict[str, Any]) -> None:
    here = seen["here"]
    assert (here["status"], here["headers"]["x-appliance-route"]) == (200, "local")
    assert here["headers"]["x-appliance-data-class"] == "internal"
    assert seen["heard while the house could answer"] == 0


def test_else_a_provider_answers_with_the_names_back_in_place(seen: dict[str, Any]) -> None:
    there = seen["there"]
    assert there["status"] == 200, there
    assert there["body"]["choices"][0]["message"]["content"] == LETTER
    assert there["body"]["model"] == "chat"
    headers = there["headers"]
    assert (headers["x-appliance-route"], headers["x-appliance-provider"]) == ("cloud", "far")
    assert (headers["x-appliance-region"], headers["x-appliance-data-class"]) == ("eu", "personal")
    masked = dict(each.split("=") for each in headers["x-appliance-masked"].split(";"))
    assert {"person", "address", "bank_account"} <= masked.keys()


def test_a_request_that_would_wait_too_long_is_answered_outside_and_who_waits_here(seen: dict[str, Any]) -> None:
    busy = seen["busy"]
    assert (busy["status"], busy["headers"]["x-appliance-route"]) == (200, "cloud"), busy
    assert busy["body"]["choices"][0]["message"]["content"] == LETTER
    assert seen["who waited"] == 200


def test_a_stream_and_a_message_have_them_back_too(seen: dict[str, Any]) -> None:
    assert (seen["stream route"], seen["stream"]) == ("cloud", LETTER)
    assert seen["message"] == [LETTER]


def test_arguments_of_tools_have_them_back(seen: dict[str, Any]) -> None:
    assert "Kowalczyk-Weber" in seen["arguments"]["client"]


def test_no_provider_received_an_original(seen: dict[str, Any]) -> None:
    for name in NAMES:
        received = seen[f"{name} received"]
        assert "Klient_001" in received
        assert [each for each in ORIGINALS if each.lower() in received.lower()] == []


def test_a_provider_that_is_overloaded_has_the_next_asked_with_the_same_protection(seen: dict[str, Any]) -> None:
    fallback = seen["fallback"]
    assert (fallback["status"], fallback["headers"]["x-appliance-provider"]) == (200, "near")
    assert fallback["body"]["choices"][0]["message"]["content"] == LETTER
    assert seen["fallback heard"] == 1


def test_an_app_can_demand_the_house(seen: dict[str, Any]) -> None:
    assert seen["stays"]["status"] == 503
    assert "x-appliance-held" not in seen["stays"]["headers"]


@pytest.mark.parametrize(("scene", "held"), [("secret", "secret"), ("picture", "unreadable")])
def test_what_may_not_leave_is_503_with_the_reason(seen: dict[str, Any], scene: str, held: str) -> None:
    refused = seen[scene]
    assert (refused["status"], refused["headers"]["x-appliance-held"]) == (503, held)
    assert refused["body"]["error"]["code"] == "held_back"


def test_what_looks_like_a_placeholder_comes_back_as_it_was(seen: dict[str, Any]) -> None:
    answer = seen["escaped"]
    assert answer["status"] == 200
    assert (
        answer["body"]["choices"][0]["message"]["content"] == "Was bedeutet Klient_001 in dem Brief an Anna Kowalczyk?"
    )


def test_no_original_of_any_document_left_in_any_form(seen: dict[str, Any]) -> None:
    judge(seen, COUNT)


def judge(seen: dict[str, Any], count: int) -> None:
    """Every document was answered or held with a reason, and the providers' bytes hold nothing of any."""
    outcomes = seen["outcomes"]
    assert sum(outcomes.values()) == count
    assert outcomes.keys() <= {"200", *Held}, outcomes
    assert outcomes["200"] > count // 3, outcomes
    assert seen["sent"] >= outcomes["200"]
    left = {leak.partition(":")[0] for leak in seen["leaks"]}
    assert len(left) <= MISSED * outcomes["200"], seen["leaks"]


@pytest.mark.parametrize("hide", [str, str.upper, str.lower, lambda text: base64.b64encode(text.encode()).decode()])
def test_the_judge_finds_what_leaks(hide: Callable[[str], str]) -> None:
    document = Document("1", "de", "letter", {}, ((Kind.PERSON, "Müller-Lüdenscheidt"), (Kind.PHONE, "030 / 1234-567")))
    for _, value in document.originals:
        body = json.dumps({"messages": [{"content": f"an {hide(value)} geschickt"}]}).encode()
        assert leaked(body, document) != []
    assert leaked(b'{"content": "an Klient_001 geschickt"}', document) == []


def test_nothing_else_left_the_house(seen: dict[str, Any]) -> None:
    assert seen["packets"] == []
    assert set(seen["names"]) <= set(NAMES.values())


def test_the_log_says_of_each_what_was_found_where_it_went_and_under_which_rule(seen: dict[str, Any]) -> None:
    intents = [each["body"] for each in seen["log"] if each["kind"] == "intent"]
    gone = [each for each in intents if each["route"] == "cloud"]
    assert gone
    assert all(each["class"] in ("internal", "confidential", "personal") and each["providers"] for each in gone)
    assert gone[0]["found"].keys() >= {"person", "bank_account"}
    assert (gone[0]["purpose"], gone[0]["rule"][:6]) == ("Letters to clients", "rule 3")
    outcomes = [each["body"] for each in seen["log"] if each["kind"] == "outcome"]
    assert {each.get("provider") for each in outcomes} == {None, "far", "near"}
    held = [each["body"] for each in seen["log"] if each["kind"] == "refusal" and "held" in each["body"]]
    assert {"secret", "unreadable"} <= {each["held"] for each in held}


def test_no_log_and_no_metric_holds_an_original(seen: dict[str, Any]) -> None:
    for where in ("logs", "metrics", "output"):
        assert [each for each in ORIGINALS if each in seen[where]] == [], where
    assert [each for each in ORIGINALS if each in json.dumps(seen["log"], ensure_ascii=False)] == []


def test_the_proof_of_the_seal_holds_with_gate_and_detectors(seen: dict[str, Any]) -> None:
    assert seen["verify"]["status"] == 0, seen["verify"]["said"]
    assert seen["exit"] == 0


def test_the_status_says_what_left_and_what_stayed(seen: dict[str, Any]) -> None:
    (line,) = (line for line in seen["status"].splitlines() if line.startswith("gate "))
    assert re.fullmatch(r"gate +answered outside: (?:(?:far|near) \d+(?:, )?){2}; stayed: .*\bsecret \d.*", line)
    assert re.search(r"replaced by placeholders: person \d+, ", seen["status"])


@pytest.mark.long
def test_no_original_of_3000_documents_left_in_any_form(tmp_path: Path) -> None:
    judge(_seen(tmp_path, 3000), 3000)


if __name__ == "__main__":
    print(json.dumps(happen(int(sys.argv[1]))))  # noqa: T201 - the answer to whoever started it
