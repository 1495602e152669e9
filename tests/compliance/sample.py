"""Three days of an appliance's life as its files tell them: mixed traffic, administration, a failure, an erasure."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appliance import config
from appliance.accounts.keys import KeyRecord
from appliance.audit.archive import Actor, Archive
from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.subjects import Subjects
from appliance.compliance.collect import Facts, gather
from appliance.compliance.factsheets import factsheets
from appliance.compliance.month import Month
from appliance.config import Config
from appliance.core import Role
from appliance.egress.ledger import Ledger
from appliance.errors import Forbidden
from tests.egress import found
from tests.fakes.house import House
from tests.fakes.time_authority import Root

NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)
BEGAN = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
SETTINGS: dict[str, Any] = {
    "listen": {"host": "10.20.0.5", "port": 8443, "tls": {"certificate": "tls/cert.pem", "key": "tls/key.pem"}},
    "egress": {"mode": "deny", "verify": {"every_seconds": 3600}},
    "accounts": {
        "teams": {"Vertrieb": {"tokens_per_month": 20_000_000}, "Büro & Empfang": {}},
        "use_cases": {
            "angebote": {"purpose": "Angebote und Auftragsbestätigungen entwerfen"},
            "posteingang": {"purpose": "Eingehende Post nach Zuständigkeit sortieren", "service_class": "batch"},
            "probe": {},
            "reklamation": {"purpose": "Reklamationen beantworten, mit Nachprüfung", "store_content": True},
        },
        "identity": {
            "issuer": "https://sso.example.internal/realms/haus", "audience": "appliance",
            "keys_url": "https://sso.example.internal/realms/haus/protocol/openid-connect/certs",
        },
    },
    "audit": {
        "timestamps": {"url": "http://tsa.example.internal:3161/", "certificate": "tsa.pem"},
        "shipping": {"endpoint": "https://collector.example.internal:4318"},
    },
}  # fmt: skip
DIFF = """\
--- old
+++ new
@@ -3,4 +3,6 @@
 models:
   chat:
     card: klein
-    batching: {max_sequences: 32}
+    batching: {max_sequences: 64}
+  archiv:
+    endpoint: https://gpu2.example.internal/v1
"""


def config_of(house: House, **changed: Any) -> Config:
    """A config with every destination in it that a house has by itself."""
    house.card("klein", title="SmolLM2 135M", licence="Apache-2.0", languages=["de", "en"], limits=["often wrong"],
               out_of_scope=["medical advice"])  # fmt: skip
    house.card("vektoren", task="embedding", title="E5 small", licence="MIT")
    house.serve("chat", "klein")
    house.serve("vectors", "vektoren")
    house.settings["models"]["archiv"] = {"endpoint": "https://gpu2.example.internal/v1", "context_length": 32_768}
    house.write(**SETTINGS)
    Root(house.folder, "tsa")
    return config.load(house.write(**changed))


def keys() -> list[KeyRecord]:
    """Keys of all kinds."""
    since = datetime(2026, 9, 1, tzinfo=UTC).timestamp()
    new, ends = BEGAN.timestamp() + 7200, datetime(2027, 3, 31, tzinfo=UTC).timestamp()
    made = [
        KeyRecord("key_0a91c2d3e4f5", b"a", "", since, "host", user="Jörg Größer", role=Role.SUPER_ADMIN),
        KeyRecord("key_1b91c2d3e4f5", b"b", "", since, "host", user="Ute Weiß", role=Role.ADMIN, expires=ends),
        KeyRecord("key_2c91c2d3e4f5", b"c", "", new, "host", user="Änne Öztürk", role=Role.AUDITOR, expires=ends),
        KeyRecord("key_3d91c2d3e4f5", b"d", "Sortierer", since, "host", team="Büro & Empfang"),
        KeyRecord("key_3e91c2d3e4f5", b"3", "Überwachung", since, "host", role=Role.ADMIN, expires=ends),
        KeyRecord("key_3f91c2d3e4f5", b"4", "", since, "host", user="person99", role=Role.POWER_USER, expires=ends),
        KeyRecord("key_4e91c2d3e4f5", b"e", "", since, "host", user="leaver", team="Vertrieb", revoked=new),
        KeyRecord("key_5f91c2d3e4f5", b"f", "", since, "host", user="temp", team="Vertrieb", expires=new),
    ]
    people = [("Vertrieb", number) for number in range(14)] + [("Büro & Empfang", number) for number in range(5)]
    made += [
        KeyRecord(f"key_{index:012x}", bytes([index]), "", since + index, "host", user=f"person{index}", team=team,
                  expires=ends if index % 3 else None)
        for index, (team, _) in enumerate(people)
    ]  # fmt: skip
    return made


def proofs(state: Path, *, failing: bool = False, gap: bool = False) -> None:
    """A verification each hour since the beginning; if it is to be so, one of them fails, and six are missing."""
    folder = state / "egress"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ledger = Ledger(folder)
    good, bad = (found.built(*made()) for made in (found.holding, found.violated))
    at, number = BEGAN + timedelta(seconds=90), 0
    while at < NOW:
        if not (gap and 30 <= number < 36):
            report = bad if failing and number == 20 else good
            ledger.append({**report, "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
        at, number = at + timedelta(hours=1, seconds=1), number + 1


REASON = "Verdacht auf Weitergabe des Schlüssels; Person: p_0, \u201eSchlüssel\u201c"
"""It would like to look like other particulars."""


class Clock:
    """Says what time it is, as the test says."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at.timestamp()


async def life(config: Config, requests: int = 360) -> None:
    """Write the log: the traffic of three days and what is done beside it."""
    clock, chance = Clock(BEGAN), random.Random(5)  # noqa: S311 - the same life each time
    keys = config.state / "audit-keys"
    journal = await Journal.open(config.state / "audit", keys, config.settings.audit, wall=clock)
    archive = Archive(journal, Subjects.open(keys), Holds.open(config.state / "audit-work", anew=True))
    chief = Actor("Jörg Größer", "super_admin", "key_0a91c2d3e4f5", "Jörg Größer")
    auditor = Actor("Änne Öztürk", "auditor", "key_2c91c2d3e4f5", "Änne Öztürk")
    journal.note(Kind.ACT, {"act": "start", "by": {"role": "appliance"}, "phase": "done", "version": "0.5.0"})
    weights = {sheet.name: sheet.weights[:32] for sheet in factsheets(config)}
    async with archive.act("keys.create", Actor.host(), target="Änne Öztürk", key="key_2c91c2d3e4f5", role="auditor"):
        pass
    gap = (NOW - BEGAN) / requests
    for number in range(requests):
        clock.at += gap
        await _request(archive, chance, weights, number)
        if number == requests // 3:
            async with archive.act("config.apply", chief, sections=["models"], diff=DIFF) as act:
                act.tell(changes=["archiv: starts", "chat: restarts"])
        if number == requests // 2:
            await _administration(archive, chief, auditor)
        if number % 40 == 0:
            journal.note(Kind.STRANGERS, {"counts": {"invalid_api_key": 3, "missing_api_key": 1}, "seconds": 60})
    journal.note(Kind.ACT, {"act": "stop", "by": {"role": "appliance"}, "phase": "done", "asked": True})
    await journal.checkpoint_now()
    await archive.close(5)


async def _request(archive: Archive, chance: random.Random, weights: dict[str, str], number: int) -> None:
    model = chance.choices(["chat", "archiv", "vectors"], [7, 2, 1])[0]
    case = chance.choices(["angebote", "posteingang", "reklamation", None], [5, 2, 1, 3])[0]
    person = f"person{number % 19}"
    team = "Vertrieb" if number % 19 < 14 else "Büro & Empfang"
    who = archive.who(Actor(person, "user", f"key_{number % 19:012x}", person, team))
    if number % 23 == 22:
        code = chance.choice(["budget_exceeded", "not_allowed"])
        refusal = {**who, "code": code, "request": f"r{number}", "status": 429}
        await archive.journal.write(Kind.REFUSAL, refusal).kept()
        return
    intent = {
        **who, "class": "unclassified", "found": {}, "model": model, "most_tokens": 4096, "operation": "chat",
        "policy": "5f2c91aa", "request": f"r{number}", "route": "house" if model == "archiv" else "local",
        "stream": True, "team": team,
        **({"weights": weights[model]} if model != "archiv" else {}), **({"use_case": case} if case else {}),
    }  # fmt: skip
    ticket = archive.journal.write(Kind.INTENT, intent)
    if case == "reklamation":
        subject = archive.subjects.of(person)
        content = {"intent": ticket.seq, "part": "asked", "sealed": subject.seal(b"?"), "subject": subject.pseudonym}
        archive.journal.note(Kind.CONTENT, content)
    await ticket.kept()
    outcome = chance.choices(["answered", "caller_gone", "failed"], [20, 2, 1])[0]
    archive.journal.note(Kind.OUTCOME, {
        "completion_tokens": chance.randrange(20, 900), "intent": ticket.seq, "nanoeuros": chance.randrange(10**8),
        "outcome": outcome, "prompt_tokens": chance.randrange(50, 6000), "status": 200, "total_ms": 900, "wait_ms": 12,
    })  # fmt: skip


async def _administration(archive: Archive, chief: Actor, auditor: Actor) -> None:
    journal = archive.journal
    journal.note(Kind.INCIDENT, {"incident": "audit_unwritable", "seconds": 41, "refused": 12})
    down = {"incident": "engine_down", "model": "chat"}
    journal.note(Kind.INCIDENT, down | {"phase": "begin", "why": "the engine ended (exit status 1)"})
    journal.note(Kind.INCIDENT, down | {"phase": "end", "seconds": 34})
    journal.note(Kind.ACT, {"act": "stop", "by": {"role": "appliance"}, "phase": "done", "asked": False})
    journal.note(Kind.ACT, {"act": "start", "by": {"role": "appliance"}, "phase": "done", "version": "0.5.0"})
    pseudonym = archive.subjects.of("person3").pseudonym
    leaver = archive.subjects.of("leaver").pseudonym
    async with archive.act("erase", Actor.host(), subject=leaver) as act:
        archive.subjects.erase("leaver")
        act.tell(keys=1, rows=14)
    hold = {"id": "hold_1c2d3e4f5a6b", "reason": "Az. 12 O 345/26", "since": "2026-10-01", "until": None,
            "subject": pseudonym, "by": "p_1", "at": "2026-11-21T10:00:00.000Z"}  # fmt: skip
    async with archive.act("hold", auditor, target="person3", hold=hold):
        pass
    async with archive.act("retention", Actor.appliance()) as act:
        act.tell(removed={"refusal": 7}, segments=1, failed=0, held=3, oldest="2026-08-20T05:00:00.000Z",
                 newest="2026-08-20T21:59:59.000Z")  # fmt: skip
    for filters in ({"kind": "refusal", "order": "newest"}, {"subject": pseudonym}, {"subject": pseudonym}):
        async with archive.act("read", auditor, filters=filters) as act:
            act.tell(records=6)
    async with archive.act("export", auditor, filters={"from": "2026-11-01"}, format="csv") as act:
        act.tell(records=812, sha256="9f" * 32)
    with contextlib.suppress(Forbidden):
        async with archive.act("read", Actor("person5", "user", "key_000000000005", "person5"), filters={}):
            raise Forbidden("no")
    asked = {"subject": pseudonym, "reason": REASON}
    async with archive.act("reveal.ask", auditor, **asked) as act:
        act.tell(reveal="reveal_1c2d3e4f5a6b")
    asked["reveal"] = "reveal_1c2d3e4f5a6b"
    for name, by in (("reveal.approve", chief), *[("reveal.show", auditor)] * 3, ("reveal.show", chief)):
        async with archive.act(name, by, **asked):
            pass


def facts(house: House, *, failing: bool = False, gap: bool = False, requests: int = 360, **changed: Any) -> Facts:
    """All of it, gathered as of `NOW`."""
    loaded = config_of(house, **changed)
    proofs(loaded.state, failing=failing, gap=gap)
    asyncio.run(life(loaded, requests))
    month = Month.of(datetime(2026, 11, 1, tzinfo=UTC).date(), loaded.settings.accounts.zone, NOW)
    return gather(loaded, keys(), month, host="llm-1.example.internal", made=NOW)
