"""What the gate lets out, what it keeps and why, and that final bytes are held to what it said."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clearance import NotCleared, verify
from appliance.config import Privacy, Provider
from appliance.core import DataClass
from appliance.privacy.asked import Asked, DetectorFailed
from appliance.privacy.gate import Gate
from appliance.privacy.kinds import Kind, Span
from appliance.privacy.tickets import TICKET_SECONDS
from appliance.privacy.verdict import Held, Verdict

NOW = 1_800_000_000.0
KEY = Ed25519PrivateKey.generate()
NAMES: Mapping[str, Kind] = {
    "Anna Müller": Kind.PERSON,
    "Frau Müller": Kind.PERSON,
    "Müller": Kind.PERSON,
    "Weber AG": Kind.ORGANISATION,
    "Ulm": Kind.PLACE,
    "34 Jahre": Kind.AGE,
    "03.03.1978": Kind.DATE_OF_BIRTH,
    "80331": Kind.POSTCODE,
    "4711815": Kind.REFERENCE,
    "Sommer2024!": Kind.SECRET,
}


class Finds:
    """A detector that knows some names, as they are written here; for a strict look, some more."""

    def __init__(self, strictly: Mapping[str, Kind] | None = None, names: Mapping[str, Kind] = NAMES) -> None:
        self.names = names
        self.strictly = strictly or {}
        self.looked = 0

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> list[list[Span]]:
        self.looked += 1
        names = {**self.names, **self.strictly} if strict else self.names
        pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        return [
            [Span(match.start(), match.end(), names[match[0]]) for match in re.finditer(pattern, text)]
            for text in texts
        ]

    async def language(self, texts: Sequence[str]) -> list[str]:
        return ["fr" if "bonjour" in text else "de" for text in texts]

    async def known(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return [[match.span() for match in re.finditer("Qwrtz|Klient_001", text)] for text in texts]


def provider(**fields: Any) -> Provider:
    return Provider.model_validate({
        "url": "https://api.mistral.ai/v1", "region": "eu", "agreement": "AVV 12",
        "models": {"chat": {"model": "mistral-large-latest", "context_length": 128_000,
                            "prompt_euros_per_million": 2, "completion_euros_per_million": 6}},
        **fields,
    })  # fmt: skip


def rule(data_class: str, may: str = "pseudonymise") -> dict[str, Any]:
    return {
        "data_class": data_class, "may": may, "purpose": "Letters to clients", "regions": ["eu"],
        "agreement": "AVV 12",
    }  # fmt: skip


RULES = [rule("public", "send"), rule("internal"), rule("confidential"), rule("personal")]


def gate(
    detect: Any = None, policy: list[dict[str, Any]] | None = None, clock: Callable[[], float] = lambda: NOW,
    **settings: Any,
) -> Gate:  # fmt: skip
    privacy = Privacy.model_validate(
        {"floor": "public", "generalise": ["age"], "policy": RULES if policy is None else policy, "gate": settings}
    )
    return Gate(privacy, {"mistral": provider()}, detect or Finds(), KEY, clock)


def asked(payload: Any, *, operation: str = "chat", floor: DataClass = DataClass.INTERNAL) -> Asked:
    if isinstance(payload, str):
        payload = {"model": "chat", "messages": [{"role": "user", "content": payload}]}
    return Asked(operation, json.dumps(payload).encode(), floor, None, 5)


def said(verdict: Verdict) -> str:
    return str(json.loads(verdict.payload)["messages"][0]["content"])


async def test_a_personal_request_leaves_with_placeholders() -> None:
    verdict = await gate().protect(asked("Frau Müller (Anna Müller, 34 Jahre) aus Ulm schreibt der Weber AG."))
    assert verdict.held is None, verdict.why
    assert said(verdict) == "Frau Klient_001b (Klient_001, 30-39 Jahre) aus Ort_001 schreibt der Firma_001."
    assert verdict.originals == {
        "Klient_001": "Anna Müller", "Klient_001b": "Müller", "Ort_001": "Ulm", "Firma_001": "Weber AG"
    }  # fmt: skip
    assert verdict.found == {"person": 1, "age": 1, "place": 1, "organisation": 1}
    assert (verdict.data_class, verdict.providers) == (DataClass.PERSONAL, ("mistral",))
    assert verdict.rule.startswith("rule 4")


async def test_nothing_else_is_changed() -> None:
    body = {"model": "chat", "temperature": 0.5, "stop": ["ENDE"], "messages": [
        {"role": "system", "content": "Du hilfst einer Kanzlei."}, {"role": "user", "content": "Was ist AfA?"},
    ]}  # fmt: skip
    verdict = await gate().protect(asked(body, floor=DataClass.PUBLIC))
    assert json.loads(verdict.payload) == body
    assert (verdict.held, verdict.data_class, verdict.found) == (None, DataClass.PUBLIC, {})
    assert verdict.rule.startswith("rule 1")


async def test_every_field_is_masked_alike() -> None:
    schema = {"type": "object", "properties": {"Anna Müller": {"enum": ["Weber AG", "Ulm"], "default": 4711815}},
              "required": ["Anna Müller"]}  # fmt: skip
    body = {
        "model": "chat",
        "messages": [
            {"role": "system", "content": "Du arbeitest für die Weber AG."},
            {"role": "user", "content": [{"type": "text", "text": "Finde Anna Müller"}], "name": "anna"},
            {"role": "assistant", "content": None, "tool_calls": [{
                "id": "call_Müller", "type": "function", "function": {
                    "name": "find_anna_mueller",
                    "arguments": json.dumps({"name": "Anna Müller", "konto": 4711815})}}]},
            {"role": "tool", "tool_call_id": "call_Müller",
             "content": json.dumps({"ort": "Ulm", "Müller": ["müller"]})},
        ],
        "tools": [{"type": "function", "function": {
            "name": "find_anna_mueller", "description": "Finds Anna Müller", "parameters": schema}}],
        "tool_choice": {"type": "function", "function": {"name": "find_anna_mueller"}},
        "stop": ["Weber AG", "müller"],
    }  # fmt: skip
    verdict = await gate().protect(asked(body))
    assert verdict.held is None, verdict.why
    told = json.loads(re.sub(r"(_\d{3})[b-r](?![a-z])", r"\1", verdict.payload.decode()))  # whom, in whatever form
    assert not re.search("(?i)m.{1,6}ller|anna|weber|ulm|4711815", verdict.payload.decode())
    call, function = told["messages"][2]["tool_calls"][0], told["tools"][0]["function"]
    person, firm, number, place = "Klient_001", "Firma_001", "Kennung_001", "Ort_001"
    assert verdict.originals[person] == "Anna Müller"
    assert call["function"]["name"] == function["name"] == told["tool_choice"]["function"]["name"] == f"find_{person}"
    assert json.loads(call["function"]["arguments"]) == {"name": person, "konto": number}
    assert function["parameters"]["properties"] == {person: {"enum": [firm, place], "default": number}}
    assert function["parameters"]["required"] == [person]
    assert call["id"] == told["messages"][3]["tool_call_id"] == "call00001"
    assert json.loads(told["messages"][3]["content"]) == {"ort": place, person: [person]}
    assert told["stop"] == [firm, person]


async def test_a_name_of_a_tool_stays_short_enough() -> None:
    names = [f"{'x' * 59}_anna", f"{'x' * 40}_anna", f"{'x' * 64}"]
    body = {"model": "m", "messages": [{"role": "user", "content": "x", "name": "anna"}],
            "tools": [{"type": "function", "function": {"name": name}} for name in names]}  # fmt: skip
    verdict = await gate().protect(asked(body))
    first, *others = [tool["function"]["name"] for tool in json.loads(verdict.payload)["tools"]]
    assert (first, verdict.originals[first]) == ("Wort_001", names[0])
    assert others == [f"{'x' * 40}_Klient_001", names[2]]


def words_of(held: Held) -> dict[str, Any]:
    """A request that is held for it, and how the gate is set up."""
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    return {
        Held.POLICY: {"policy": [rule("internal")], "said": "Anna Müller"},
        Held.NO_PROVIDER: {"policy": [rule("internal") | {"agreement": "AVV 13"}], "said": "Was ist AfA?"},
        Held.OPERATION: {"operation": "completion", "said": {"model": "m", "prompt": "x"}},
        Held.UNREADABLE: {"said": {"model": "m", "messages": [{"role": "user", "content": image}]}},
        Held.SECRET: {"said": "Das Passwort war Sommer2024!"},
        Held.LANGUAGE: {"said": "bonjour monsieur"},
        Held.TOO_LARGE: {"said": "Wort " * 300, "most_kib": 1},
        Held.REMAINS: {"said": "Weber AG, d2ViZXIgYWc"},
        Held.DOUBT: {"detect": Finds({"Schulze": Kind.PERSON}), "said": "Weber AG und Schulze"},
        Held.WORDS: {"said": "Weber AG Qwrtz", "words": "known"},
        Held.DETECTOR: {"detect": Broken("raises"), "said": "Weber AG"},
        Held.GATE: {"said": {"messages": {"a": 1}, "model": ["Weber AG"], "tools": 1}},
    }[held]


class Broken(Finds):
    """A detector that fails in one way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> Any:
        match self.how:
            case "raises":
                raise RuntimeError(f"no {texts}")
            case "fails":
                raise DetectorFailed("it ended")
            case "hangs":
                await asyncio.Event().wait()
            case "fails at the second look" if not strict:
                return await super().find(texts)
        answers: dict[str, Any] = {
            "says nothing": None,
            "too few answers": [],
            "too many answers": [[] for _ in range(len(texts) + 1)],
            "no list": ["" for _ in texts],
            "no spans": [["Weber AG"] for _ in texts],
            "no numbers": [[Span("0", "1", Kind.PERSON)] for _ in texts],  # type: ignore[arg-type]
            "no kind": [[Span(0, 1, "person")] for _ in texts],  # type: ignore[arg-type]
            "before the text": [[Span(-1, 1, Kind.PERSON)] for _ in texts],
            "beyond the text": [[Span(0, len(text) + 1, Kind.PERSON)] for text in texts],
            "backwards": [[Span(2, 1, Kind.PERSON)] for _ in texts],
            "empty": [[Span(1, 1, Kind.PERSON)] for _ in texts],
        }
        return answers.get(self.how)


HOW = (
    "raises", "fails", "hangs", "fails at the second look", "says nothing", "too few answers", "too many answers",
    "no list", "no spans", "no numbers", "no kind", "before the text", "beyond the text", "backwards", "empty",
)  # fmt: skip


@pytest.mark.parametrize("how", HOW)
async def test_a_broken_detector_lets_nothing_out(how: str) -> None:
    case = Asked("chat", asked("Weber AG").payload, DataClass.INTERNAL, None, 0.05 if how == "hangs" else 5)
    verdict = await gate(Broken(how)).protect(case)
    assert (verdict.held, verdict.payload, verdict.originals, verdict.ticket) == (Held.DETECTOR, b"", {}, "")
    assert "Weber" not in verdict.why


@pytest.mark.parametrize(
    "answers", [{"language": None}, {"language": [None]}, {"known": []}, {"known": [[(0, 99)]]}, {"known": [["x"]]}]
)
async def test_other_nonsense_of_detectors_lets_nothing_out(answers: dict[str, Any]) -> None:
    class Nonsense(Finds):
        async def language(self, texts: Sequence[str]) -> Any:
            return answers["language"] if "language" in answers else await super().language(texts)

        async def known(self, texts: Sequence[str]) -> Any:
            return answers["known"] if "known" in answers else await super().known(texts)

    verdict = await gate(Nonsense(), words="known").protect(asked("Was ist AfA?"))
    assert verdict.held is Held.DETECTOR


@pytest.mark.parametrize("held", [held for held in Held if held is not Held.GATE])
async def test_each_reason_to_stay(held: Held) -> None:
    case = words_of(held)
    said, operation = case.pop("said"), case.pop("operation", "chat")
    verdict = await gate(**case).protect(asked(said, operation=operation))
    assert verdict.held is held
    assert verdict.why
    assert (verdict.payload, verdict.originals, verdict.ticket, verdict.providers) == (b"", {}, "", ())
    assert not re.search("Müller|Weber|Schulze|Sommer|Qwrtz|bonjour", verdict.why)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b'{"messages": 1e999}',
        b"null",
        b'{"seed": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 60_000,
    ],
)
async def test_a_payload_that_is_none_stays(payload: bytes) -> None:
    verdict = await gate().protect(Asked("chat", payload, DataClass.INTERNAL, None, 5))
    assert verdict.held in (Held.GATE, Held.UNREADABLE)


async def test_what_is_found_raises_the_class_and_never_lowers_it() -> None:
    assert (await gate().protect(asked("Was ist AfA?", floor=DataClass.PUBLIC))).data_class is DataClass.PUBLIC
    assert (await gate().protect(asked("Ulm", floor=DataClass.PUBLIC))).data_class is DataClass.INTERNAL
    assert (await gate().protect(asked("Weber AG", floor=DataClass.PUBLIC))).data_class is DataClass.CONFIDENTIAL
    assert (await gate().protect(asked("Ulm", floor=DataClass.CONFIDENTIAL))).data_class is DataClass.CONFIDENTIAL
    held = await gate(policy=[rule("public", "send")]).protect(asked("Anna Müller", floor=DataClass.PUBLIC))
    assert (held.held, held.data_class, held.found) == (Held.POLICY, DataClass.PERSONAL, {"person": 1})


async def test_nobody_looks_at_what_can_not_leave_anyway() -> None:
    detect = Finds()
    verdict = await gate(detect, [rule("internal")]).protect(asked("Weber AG", floor=DataClass.CONFIDENTIAL))
    assert (verdict.held, detect.looked) == (Held.POLICY, 0)
    assert (await gate(detect, [rule("personal")]).protect(asked("Anna Müller"))).held is None
    assert detect.looked == 2


@pytest.mark.parametrize(
    "hidden",
    ["M ü l l e r", "Mül**ler**", "M\u200büller", "Мüllеr", "MÜLLER", "mueller", "Mu\u0308ller", "M-ü-l-l-e-r"],
)
async def test_a_known_name_is_masked_however_it_is_hidden(hidden: str) -> None:
    verdict = await gate().protect(asked(f"Anna Müller, auch {hidden} genannt"))
    assert verdict.held is None
    assert re.fullmatch(r"Klient_001b?, auch Klient_001b? genannt", said(verdict).replace("*", ""))


@pytest.mark.parametrize(
    "hidden",
    ["TcO8bGxlciBNw7xsbGVyIE3DvGxsZXI=", "M%C3%BCller", "4dc3bc6c6c6572204dc3bc6c6c6572", "M\\u00fcller", "M&uuml;ller",
     "Mül-\nler", "M=C3=BCller", "xn--mller-kva"],
)  # fmt: skip
async def test_a_known_name_that_is_encoded_stays(hidden: str) -> None:
    verdict = await gate().protect(asked(f"Anna Müller, siehe {hidden}."))
    assert verdict.held in (Held.REMAINS, Held.UNREADABLE)


async def test_the_second_look_does_not_mind_what_the_gate_put_there() -> None:
    detect = Finds({"Klient_001": Kind.PERSON, "30-39": Kind.AGE, "Hund Klient_001s": Kind.PERSON})
    assert (await gate(detect).protect(asked("Hund Anna Müllers, 34 Jahre"))).held is Held.DOUBT
    detect.strictly = {"Klient_001": Kind.PERSON, "30-39 Jahre": Kind.AGE, "Klient_001s": Kind.PERSON}
    assert (await gate(detect, words="known").protect(asked("Anna Müllers 34 Jahre"))).held is None


async def test_it_explains_without_letting_out() -> None:
    explanation = await gate(policy=[]).explain(asked("Anna Müller aus Ulm"))
    assert (explanation.verdict.held, explanation.verdict.data_class) == (Held.POLICY, DataClass.PERSONAL)
    (text,) = explanation.texts
    assert (text.path, text.text) == (("messages", 0, "content"), "Anna Müller aus Ulm")
    assert [(span.start, span.end, span.kind) for span in text.spans] == [(0, 11, Kind.PERSON), (16, 19, Kind.PLACE)]
    free = await gate().explain(asked("Anna Müller aus Ulm"))
    assert (free.verdict.held, free.verdict.ticket) == (None, "")


FINAL = {"provider": "mistral", "method": "POST", "path": "/v1/chat/completions"}


async def released(at: Gate, text: str = "Anna Müller schuldet 4711815 Euro.\nMit Gruß") -> tuple[str, dict[str, Any]]:
    verdict = await at.protect(asked(text))
    assert verdict.held is None
    return verdict.ticket, json.loads(verdict.payload)


async def test_final_bytes_are_cleared_for_this_request_alone() -> None:
    at = gate()
    ticket, told = await released(at)
    body = json.dumps(told | {"model": "mistral-large-latest", "max_tokens": 4096, "stream": True}).encode()
    clearance = at.clear(ticket, body=body, **FINAL)
    assert verify(KEY.public_key(), clearance, body=body, now=NOW, **FINAL).provider == "mistral"
    assert at.clear(ticket, body=body, **FINAL) != clearance  # another one for each try


async def test_the_other_dialect_says_the_same() -> None:
    at = gate()
    ticket, told = await released(at)
    (message,) = told["messages"]
    turns = [{"type": "text", "text": line} for line in message["content"].split("\n")]
    body = {"model": "mistral-large-latest", "max_tokens": 4096, "stream": True,
            "messages": [{"role": "user", "content": turns}]}  # fmt: skip
    assert at.clear(ticket, body=json.dumps(body).encode(), **FINAL)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"messages": [{"role": "user", "content": "Klient_001 schuldet 4711815 Euro."}]}, "still stands"),
        ({"messages": [{"role": "user", "content": "TcO8bGxlciBNw7xsbGVy"}]}, "base64"),
        ({"messages": [{"role": "user", "content": "Etwas anderes"}]}, "a text"),
        ({"Etwas": 1}, "a text"),
        ({"metadata": {"user": "Kunde"}}, "a text"),
        ({"model": "gpt-5"}, "a text"),
        ({"seed": 123456789}, "a number"),
        ({"messages": [{"role": "user", "content": '{"a": "Etwas"}'}]}, "a text"),
    ],
)
async def test_nothing_can_be_added_behind_the_gate(change: dict[str, Any], why: str) -> None:
    at = gate()
    ticket, told = await released(at)
    with pytest.raises(NotCleared, match=why) as raised:
        at.clear(ticket, body=json.dumps(told | {"model": "mistral-large-latest"} | change).encode(), **FINAL)
    assert not re.search("Müller|4711815|Etwas|Kunde", str(raised.value))


async def test_what_a_model_is_called_is_nobody() -> None:
    at = gate(Finds(names={"Mistral": Kind.ORGANISATION, "Qwen": Kind.PERSON, "Messages": Kind.PERSON}))
    body = {"model": "qwen", "messages": [{"role": "user", "content": "Was kann Mistral, was Qwen? Messages fragt."}]}
    verdict = await at.protect(asked(body))
    assert verdict.held is None, verdict.why
    final = json.loads(verdict.payload) | {"model": "mistral-large-latest"}
    assert at.clear(verdict.ticket, body=json.dumps(final).encode(), **FINAL)


@pytest.mark.parametrize("body", [b"", b"Klient_001", b"\xff", b'{"a": '])
async def test_only_json_is_cleared(body: bytes) -> None:
    at = gate()
    ticket, _ = await released(at)
    with pytest.raises(NotCleared):
        at.clear(ticket, body=body, **FINAL)


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "other"}, {"method": "GET"}, {"path": "/v1/Müller"}, {"path": "/v1?name=anna"},
        {"path": "/v1/M%C3%BCller"}, {"path": "//evil example"}, {"path": "/v1/4711815"}, {"path": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_only_the_way_to_its_providers_is_cleared(change: dict[str, Any]) -> None:
    at = gate()
    ticket, told = await released(at)
    with pytest.raises(NotCleared):
        at.clear(ticket, body=json.dumps(told | {"model": "mistral-large-latest"}).encode(), **FINAL | change)


async def test_a_ticket_ends() -> None:
    now = [NOW]
    at = gate(clock=lambda: now[0])
    ticket, told = await released(at)
    body = json.dumps(told | {"model": "mistral-large-latest"}).encode()
    with pytest.raises(NotCleared, match="no such ticket"):
        at.clear(ticket[::-1], body=body, **FINAL)
    now[0] += TICKET_SECONDS - 1
    assert at.clear(ticket, body=body, **FINAL)
    now[0] += 1
    with pytest.raises(NotCleared, match="no such ticket"):
        at.clear(ticket, body=body, **FINAL)
    again, _ = await released(at)
    at.forget(again)
    at.forget(again)
    with pytest.raises(NotCleared, match="no such ticket"):
        at.clear(again, body=body, **FINAL)


async def test_no_ticket_for_what_stays() -> None:
    at = gate()
    assert (await at.protect(asked("Das Passwort war Sommer2024!"))).ticket == ""
    with pytest.raises(NotCleared):
        at.clear("", body=b"{}", **FINAL)
