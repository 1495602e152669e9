"""POST /admin/policy/explain: what would happen to a text, told to those who may ask, and kept nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.config import Privacy, Provider, Rule
from appliance.core import DataClass, Role
from appliance.privacy.asked import Asked, Explanation
from appliance.privacy.gate import Gate
from appliance.privacy.here import Here
from appliance.privacy.verdict import Held, Verdict
from tests.fakes.detector import Detector
from tests.fakes.office import Office, office

TEXT = "Anna Weber schreibt an Bernd Klein, dann Anna Weber an Frau X."
RULE: dict[str, Any] = {"may": "pseudonymise", "purpose": "letters", "regions": ["eu"], "agreement": "DPA 1"}
PRIVACY = Privacy(policy=[Rule(data_class=DataClass.PERSONAL, **RULE)])
NEAR = Provider(url="https://api.example.com/v1", region="eu", agreement="DPA 1")


class Guard:
    """The real gate in this very process, and what it was asked."""

    def __init__(self, privacy: Privacy) -> None:
        self._gate = Gate(privacy, {"near": NEAR}, Here(Detector(None, ())), Ed25519PrivateKey.generate())
        self.asked: list[Asked] = []

    async def explain(self, asked: Asked) -> Explanation:
        self.asked.append(asked)
        return await self._gate.explain(asked)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as made:
        use(made, PRIVACY)
        yield made


def use(room: Office, privacy: Privacy) -> Guard:
    guard: Any = Guard(privacy)
    room.house.privacy, room.house.guard = privacy, guard
    made: Guard = guard
    return made


async def explain(room: Office, role: Role = Role.ADMIN, status: int = 200, **body: Any) -> dict[str, Any]:
    _, key = await room.key(role)
    async with room.client(key) as client:
        answer = await client.post("/admin/policy/explain", json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    if status == 200:
        assert answer.headers["cache-control"] == "no-store"
    return told


@pytest.mark.parametrize("role", [Role.ADMIN, Role.SUPER_ADMIN, Role.AUDITOR])
async def test_it_tells_what_would_happen_and_why(room: Office, role: Role) -> None:
    told = await explain(room, role, text=TEXT)
    (text,) = told.pop("texts")
    assert told == {
        "object": "policy.explanation", "leaves": True, "data_class": "personal", "held": None, "why": None,
        "rule": "rule 1: personal, any use case", "purpose": "letters", "providers": ["near"], "found": {"person": 2},
        "checks": [{"check": name, "passed": True} for name in (
            "operation", "size", "readable", "language", "secrets", "policy", "remains", "second_look",
        )],
    }  # fmt: skip
    assert text["path"] == "messages[0].content"
    assert text["masked"] == "Klient_001 schreibt an Klient_002, dann Klient_001 an Frau X."
    assert [(find["start"], find["end"], find["kind"], find["raises_to"]) for find in text["finds"]] == [
        (0, 10, "person", "personal"), (23, 34, "person", "personal"), (41, 51, "person", "personal"),
    ]  # fmt: skip
    assert "words" not in text["finds"][0], "whoever asked has them"


@pytest.mark.parametrize("role", [Role.USER, Role.POWER_USER])
async def test_others_may_not_ask(room: Office, role: Role) -> None:
    await explain(room, role, 403, text=TEXT)


async def test_what_stays_is_told_with_the_check_that_it_failed(room: Office) -> None:
    told = await explain(room, text="Nichts Besonderes.")
    assert (told["leaves"], told["held"], told["data_class"]) == (False, "policy", "internal")
    assert "privacy.policy" in told["why"]
    assert {check["check"]: check["passed"] for check in told["checks"]} == {
        "operation": True, "size": True, "readable": True, "language": True, "secrets": True, "policy": False,
        "remains": None, "second_look": None,
    }  # fmt: skip
    told = await explain(room, text="Das Passwort ist hunter2.", data_class="personal")
    assert (told["held"], told["providers"], told["found"]) == ("secret", [], {"secret": 1})
    assert told["texts"][0]["masked"] == "Das Passwort ist Kennung_001."


async def test_a_whole_request_is_looked_through_in_every_field(room: Office) -> None:
    request = {
        "model": "chat", "messages": [
            {"role": "system", "content": "Du hilfst Anna Weber."},
            {"role": "user", "content": [{"type": "text", "text": "Hallo"}]},
        ],
    }  # fmt: skip
    told = await explain(room, request=request)
    assert [(text["path"], len(text["finds"])) for text in told["texts"]] == [
        ("messages[0].content", 1), ("messages[1].content[0].text", 0),
    ]  # fmt: skip
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    told = await explain(room, request={"model": "chat", "messages": [{"role": "user", "content": [image]}]})
    assert told["held"] == "unreadable"
    message = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "Anna Weber"}]}
    assert (await explain(room, request=message, operation="message"))["leaves"]
    assert (await explain(room, text="Anna Weber", operation="message"))["leaves"]


async def test_the_class_is_that_of_config_use_case_and_what_is_said(room: Office) -> None:
    guard = use(room, PRIVACY)
    for use_case, data_class in (
        (None, None), ("night", None), ("mail", None), ("night", "personal"), (None, "public"),
    ):  # fmt: skip
        await explain(room, text="x", use_case=use_case, data_class=data_class)
    assert [str(asked.floor) for asked in guard.asked] == [
        "internal", "confidential", "internal", "personal", "internal",
    ]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), [
    ({}, None),
    ({"text": "x", "request": {}}, None),
    ({"text": ""}, "text"),
    ({"text": 1}, "text"),
    ({"text": "x", "operation": "embedding"}, "operation"),
    ({"text": "x", "use_case": "gone"}, "use_case"),
    ({"text": "x", "data_class": "secret"}, "data_class"),
    ({"text": "x", "texts": []}, "texts"),
    ({"request": {"model": "chat"}}, "request.messages"),
    ({"request": {"model": "m", "messages": [{"role": "user", "content": "x"}], "nonsense": 1}}, "request.nonsense"),
    ({"request": []}, "request"),
])  # fmt: skip
async def test_what_is_wrong_is_named_and_nobody_looks(room: Office, body: dict[str, Any], param: str | None) -> None:
    guard = use(room, PRIVACY)
    told = await explain(room, status=400, **body)
    assert told["error"]["param"] == param
    assert not guard.asked


async def test_that_somebody_asked_is_on_record_and_nothing_of_the_text_is_anywhere(
    room: Office, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await explain(room, text=TEXT, use_case="night")
    journal: Any = room.archive.journal
    (record,) = journal.records
    assert record["body"].items() >= {
        "act": "policy.explain", "phase": "done", "operation": "chat", "use_case": "night", "class": "confidential",
    }.items()  # fmt: skip
    kept = b"".join((caplog.text.encode(), *journal.lines, *files(tmp_path)))
    assert b"night" in kept
    for word in (b"Weber", b"Bernd", b"schreibt"):
        assert word not in kept


def files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


async def test_what_can_not_be_put_on_record_is_not_told(room: Office) -> None:
    guard = use(room, PRIVACY)
    journal: Any = room.archive.journal
    journal.fail()
    told = await explain(room, status=503, text=TEXT)
    assert told["error"]["code"] == "audit_unavailable"
    assert not guard.asked


async def test_where_nothing_may_leave_it_says_so_and_who_explains_all_the_same(room: Office) -> None:
    room.house.guard = None
    told = await explain(room, status=409, text=TEXT)
    assert told["error"]["code"] == "nothing_leaves"
    assert "appliance policy test" in told["error"]["message"]


async def test_a_gate_that_fails_is_told_as_such(room: Office) -> None:
    class Gone:
        async def explain(self, asked: Asked) -> Explanation:
            return Explanation(Verdict(DataClass.PERSONAL, {}, Held.GATE, "the gate has ended"))

    gone: Any = Gone()
    room.house.guard = gone
    told = await explain(room, text=TEXT)
    assert (told["held"], told["why"], told["texts"]) == ("gate", "the gate has ended", [])
    assert {check["passed"] for check in told["checks"]} == {None}
