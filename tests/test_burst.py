"""What becomes of a request that the house can't answer: it leaves as the gate says, or stays with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import testimony
from appliance.accounts.cap import DailyCap
from appliance.accounts.entries import Want
from appliance.accounts.prices import Prices
from appliance.burst import Burst
from appliance.clearance import NotCleared
from appliance.config import Accounts, CloudModel, Privacy, Provider, Rule, Settings
from appliance.core import Caller, DataClass, Operation, Request, Role, Task
from appliance.dispatch.cloud.cloud import Candidate, Masked
from appliance.errors import BadRequest, BudgetExceeded, HeldBack, Loading, Overloaded, Refused, UpstreamFailed
from appliance.observe import Metrics
from appliance.privacy.verdict import Held, Verdict
from appliance.testimony import Told
from tests.fakes import journal

RULE = {"purpose": "Letters", "regions": ["eu"], "agreement": "DPA 7"}
BUSY = Overloaded("the wait is too long", code="overloaded", retry_after=7)
LATE = Loading("the model starts", code="loading", retry_after=30)
CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")
RELEASED = Verdict(
    DataClass.PERSONAL, {"person": 2}, None, providers=("far", "near"), rule="rule 1", purpose="Letters",
    payload=b'{"messages":[]}', originals={"Klient_001": "Anna"}, ticket="t1",
)  # fmt: skip


def provider(euros: float) -> Provider:
    model = CloudModel(
        model="small", context_length=100_000, prompt_euros_per_million=euros, completion_euros_per_million=euros
    )
    return Provider(url="https://far.example.com/v1", region="eu", agreement="DPA 7", models={"chat": model})


PROVIDERS = {"far": provider(1), "near": provider(3)}


class _Guard:
    """Gives one verdict, and clears all or nothing."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked: list[Any] = []
        self.forgotten: list[str] = []

    async def protect(self, asked: Any) -> Verdict:
        self.asked.append(asked)
        return self.verdict

    async def clear(self, ticket: str, provider: str, method: str, path: str, body: bytes) -> str:
        raise NotCleared("no")

    def forget(self, ticket: str) -> None:
        self.forgotten.append(ticket)


class _Cloud:
    """Answers through the candidate of that name, or raises."""

    def __init__(self, answers: str = "far", error: BaseException | None = None) -> None:
        self.answers = answers
        self.error = error
        self.ready = ["far", "near"]
        self.served: list[Masked] = []
        self.asked: list[Request] = []

    def candidates(self, model: str, names: Sequence[str], tokens: int) -> list[Candidate]:
        return [Candidate(name, model, "eu") for name in names if name in self.ready and model == "chat"]

    async def serve(self, request: Request, masked: Masked, reply: Any, record: Any, kept: Callable[[], Any]) -> None:
        self.served.append(masked)
        self.asked.append(request)
        record.dispatched = True
        record.sent_to = dict.fromkeys(each.provider for each in masked.candidates)
        if self.error is not None:
            raise self.error
        await kept()
        masked.chosen(next(each for each in masked.candidates if each.provider == self.answers))
        restore = masked.restore()
        record.usage.prompt_tokens, record.usage.completion_tokens = 100, 50
        text = restore.feed("0", "Klient_001 Klient_009") + restore.finish("0")
        await reply.whole(text.encode())


class _Books:
    """Prices of both providers, and what was settled."""

    def __init__(self, refusal: Refused | None = None) -> None:
        settings = Settings.model_validate({
            "models": {"chat": {"card": "tiny"}},
            "egress": {"mode": "anonymized", "providers": PROVIDERS},
        })  # fmt: skip
        self.prices = Prices(settings.priced.prices)
        self.refusal = refusal
        self.settled: list[tuple[int, int, str | None]] = []
        self.wanted: list[Want] = []

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        return self.prices.cost(model, prompt_tokens, completion_tokens)

    async def reserve(self, want: Want) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.wanted.append(want)

        async def kept() -> None:
            """It is."""

        return SimpleNamespace(headers=(), kept=kept, settle=lambda *used: self.settled.append(used))


class _Reply:
    def __init__(self) -> None:
        self.begun = False
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.headers.update(headers)

    async def whole(self, body: bytes) -> None:
        self.begun, self.body = True, body


class Scene:
    """A burst on fakes, and all that came of it."""

    def __init__(
        self, folder: Path, verdict: Verdict = RELEASED, cloud: _Cloud | None = None, books: _Books | None = None,
        cap: int = 10**12, lets_out: DataClass = DataClass.PERSONAL,
    ) -> None:  # fmt: skip
        self.archive = journal.archive(folder)
        self.guard, self.cloud, self.books, self.reply = _Guard(verdict), cloud or _Cloud(), books or _Books(), _Reply()
        self.told = Told()
        self.counted = False
        self.metrics = Metrics()

        async def spent(_: str) -> int:
            return 0

        self.cap = DailyCap(cap, lambda: "today", spent)
        privacy = Privacy(policy=[Rule(data_class=lets_out, may="pseudonymise", **RULE)])
        witness = testimony.Testimony(self.archive, Accounts(), "3f9c2a71")
        parts: list[Any] = [self.guard, self.cloud, self.cap, self.books, witness, self.metrics]
        self.burst = Burst(privacy, PROVIDERS, *parts)
        self.request = Request(
            "req_1", Caller("key_1", Role.USER, "anna"), CHAT, "chat", b'{"messages":[]}',
            most_prompt_tokens=300, most_completion_tokens=200,
        )  # fmt: skip

    async def answer(self, refusal: Refused = BUSY) -> None:
        self.record = self.metrics.open(self.request)
        self.record.counted = self.counted
        reply: Any = self.reply
        await self.burst.answer(self.request, refusal, reply, self.record, self.told)

    @property
    def records(self) -> list[Mapping[str, Any]]:
        written: Any = self.archive.journal
        return [each["body"] for each in written.records]


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    made: list[Scene] = []

    def make(*given: Any, **named: Any) -> Scene:
        made.append(Scene(tmp_path, *given, **named))
        return made[-1]

    yield make
    for each in made:
        each.archive.subjects.close()


@pytest.mark.parametrize(
    ("refusal", "helps"),
    [
        (BUSY, True),
        (LATE, True),
        (UpstreamFailed("the engine failed", code="engine_failed"), True),
        (BadRequest("too long", code="context_length_exceeded"), True),
        (BadRequest("no such field", code="invalid_value"), False),
        (BudgetExceeded("used up", retry_after=60), False),
    ],
)
def test_it_helps_where_the_house_has_no_room_and_against_no_other_refusal(
    scene: Any, refusal: Refused, helps: bool
) -> None:
    made = scene()
    assert made.burst.helps(made.request, refusal) is helps


@pytest.mark.parametrize(
    "changed",
    [
        {"local_only": True},
        {"operation": replace(CHAT, name="embedding")},
        {"operation": replace(CHAT, name="response")},
        {"model": "other"},
    ],
)
def test_what_may_not_leave_is_not_even_looked_through(scene: Any, changed: dict[str, Any]) -> None:
    made = scene()
    assert made.burst.helps(replace(made.request, **changed), BUSY) is False


def test_what_is_too_sensitive_for_any_rule_is_not_looked_through_either(scene: Any) -> None:
    made = scene(lets_out=DataClass.CONFIDENTIAL)
    assert made.burst.helps(made.request, BUSY) is False


def test_what_may_leave_once_it_proves_more_sensitive_is_looked_through(scene: Any) -> None:
    made = scene()
    assert made.burst.helps(replace(made.request, data_class=DataClass.INTERNAL), BUSY) is True


async def test_an_answer_from_outside_says_whose_it_is_and_what_was_masked(scene: Any) -> None:
    made = scene(cloud=_Cloud("near"))
    await made.answer()
    assert made.reply.body == b"Anna Klient_009"
    assert made.reply.headers == {
        b"x-appliance-route": b"cloud", b"x-appliance-provider": b"near", b"x-appliance-region": b"eu",
        b"x-appliance-data-class": b"personal", b"x-appliance-masked": b"person=2",
    }  # fmt: skip
    assert made.guard.forgotten == ["t1"]
    shown = made.metrics.render().decode()
    assert 'appliance_placeholders_total{what="known"} 1.0' in shown
    assert 'appliance_placeholders_total{what="unknown"} 1.0' in shown
    assert 'appliance_masked_total{kind="person"} 2.0' in shown


async def test_it_is_on_record_before_it_leaves_and_says_who_got_it(scene: Any) -> None:
    made = scene()
    await made.answer()
    intent, outcome = made.records
    assert {name: intent[name] for name in ("route", "class", "found", "providers", "purpose", "rule")} == {
        "route": "cloud", "class": "personal", "found": {"person": 2}, "providers": ["far", "near"],
        "purpose": "Letters", "rule": "rule 1",
    }  # fmt: skip
    assert (outcome["outcome"], outcome["provider"], outcome["prompt_tokens"]) == ("answered", "far", 100)
    assert outcome["sent_to"] == ["far", "near"], "also those that didn't answer"
    assert made.told.on_record


async def test_the_dearest_is_reserved_and_who_answered_is_booked(scene: Any) -> None:
    made = scene(cap=3 * 500 * 1000)
    await made.answer()
    assert (made.books.wanted[0].model, made.books.wanted[0].prompt_tokens) == ("near small", 300)
    assert made.books.settled == [(100, 50, "far small")]
    assert await made.cap.hold(3 * 500 * 1000 - 150 * 1000) is not None


@pytest.mark.parametrize(
    ("make", "held"),
    [
        ({"verdict": replace(RELEASED, held=Held.REMAINS, why="an original is left", payload=b"")}, "remains"),
        ({"cap": 3 * 500 * 1000 - 1}, "budget"),
        ({"cloud": _Cloud(error=UpstreamFailed("none", code="providers_failed"))}, "providers"),
        ({"cloud": _Cloud(error=Overloaded("all busy", code="providers_busy"))}, "providers"),
        ({"cloud": _Cloud(error=UpstreamFailed("not cleared", code="not_cleared"))}, "gate"),
    ],
)
async def test_what_cant_be_answered_outside_either_is_503_with_both_reasons(
    scene: Any, make: dict[str, Any], held: str
) -> None:
    made = scene(**make)
    with pytest.raises(HeldBack) as refused:
        await made.answer()
    assert (refused.value.status, refused.value.code, refused.value.held) == (503, "held_back", held)
    assert (refused.value.retry_after, "busy" in refused.value.message) == (7, True)
    assert made.told.held == held
    assert made.guard.forgotten == ["t1"]
    assert made.cap._reserved == 0


async def test_what_is_too_long_for_the_house_stays_the_callers_to_shorten(scene: Any) -> None:
    """A 503 would be tried again by every SDK, for nothing."""
    made = scene(replace(RELEASED, held=Held.SECRET, why="it holds a key; leave it out"))
    long = BadRequest("at most 4096 tokens fit", code="context_length_exceeded", param="messages")
    with pytest.raises(BadRequest) as refused:
        await made.answer(long)
    why = refused.value
    assert (why.status, why.code, why.param, why.retry_after) == (400, "context_length_exceeded", "messages", None)
    assert "4096" in why.message
    assert "a key" in why.message
    assert dict(why.headers) == {b"x-appliance-route": b"none", b"x-appliance-held": b"secret"}
    assert made.told.held == "secret"


async def test_what_a_provider_tells_of_a_long_text_is_booked_though_the_house_holds_less(scene: Any) -> None:
    made = scene(replace(RELEASED, payload=b"x" * 20_000))
    await made.answer()
    (masked,) = made.cloud.served
    assert len(masked.payload) == 20_000
    assert made.cloud.asked[0].most_prompt_tokens == 10_000
    assert made.books.wanted[0].prompt_tokens == 10_000


async def test_metrics_count_as_left_only_what_was_about_to(scene: Any) -> None:
    made = scene(books=_Books(BudgetExceeded("used up", retry_after=60)))
    with pytest.raises(BudgetExceeded):
        await made.answer()
    assert "appliance_bursts_total{" not in made.metrics.render().decode()
    assert "appliance_masked_total{" not in made.metrics.render().decode()


async def test_without_a_provider_at_the_moment_it_stays(scene: Any) -> None:
    made = scene()
    made.cloud.ready = []
    with pytest.raises(HeldBack) as refused:
        await made.answer()
    assert refused.value.held == "no_provider"
    assert made.cloud.served == []


async def test_why_it_is_held_goes_on_record_with_what_was_found(scene: Any) -> None:
    verdict = replace(RELEASED, held=Held.SECRET, found={"secret": 1})
    made = scene(verdict)
    with pytest.raises(HeldBack):
        await made.answer()
    assert made.records == []
    assert made.told == Told(on_record=False, verdict=verdict, held="secret")


@pytest.mark.parametrize("counted", [True, False])
async def test_a_request_that_the_house_has_counted_is_not_counted_again(scene: Any, counted: bool) -> None:
    made = scene()
    made.counted = counted
    await made.answer()
    assert made.books.wanted[0].again is counted


async def test_a_refusal_says_that_nobody_answered_whatever_the_house_said_before(scene: Any) -> None:
    made = scene(books=_Books(BudgetExceeded("used up", retry_after=60)))
    made.reply.note([(b"x-appliance-route", b"local")])
    with pytest.raises(BudgetExceeded):
        await made.answer()
    assert made.reply.headers[b"x-appliance-route"] == b"none"


async def test_budgets_hold_outside_too(scene: Any) -> None:
    made = scene(books=_Books(BudgetExceeded("used up", retry_after=60)))
    with pytest.raises(BudgetExceeded):
        await made.answer()
    assert made.cloud.served == []
    assert made.cap._reserved == 0


async def test_what_cant_be_put_on_record_does_not_leave(scene: Any) -> None:
    made = scene()
    written: Any = made.archive.journal
    written.fail()
    with pytest.raises(Refused) as refused:
        await made.answer()
    assert refused.value.code == "audit_unavailable"
    assert made.cloud.served == []


async def test_a_caller_who_leaves_has_what_was_asked_booked(scene: Any) -> None:
    made = scene(cloud=_Cloud(error=asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await made.answer()
    assert made.books.settled == [(300, 200, "near small")]
    assert made.records[-1]["outcome"] == "caller_gone"
    assert made.guard.forgotten == ["t1"]
