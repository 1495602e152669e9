"""What is done when providers fail: who is asked next, who is left alone, and what the caller gets to see."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from appliance.clearance import NotCleared
from appliance.dispatch.cloud.events import Event, Thought
from appliance.errors import BadRequest, BooksUnavailable, Overloaded, Refused, UpstreamFailed
from tests.dispatch.cloud.parts import CLOUD_MODEL, MESSAGE, Far, chat, far, message
from tests.fakes.dialects import Play
from tests.fakes.house import PATIENCE, until

SECRET = "Klient_001 hat 12.000 Euro Schulden"
BOTH = ("openai", "anthropic")


def ready(house: Far) -> list[str]:
    return [each.provider for each in house.cloud.candidates("public", list(house.doubles), 1000)]


async def refused(house: Far, *args: Any, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await house.ask(*args, **more)
    assert SECRET not in str(caught.value)
    return caught.value


BROKEN = {
    "an error of its own": Play(status=500, message=SECRET),
    "it is overloaded": Play(status=529, message=SECRET),
    "too many requests": Play(status=429, message=SECRET, headers={"retry-after": "7"}),
    "a key that it doesn't take": Play(status=401, message=SECRET),
    "forbidden": Play(status=403, message=SECRET),
    "no such model": Play(status=404, message=SECRET),
    "the context is too long": Play(status=400, message="prompt is too long: 9 tokens > 8 maximum"),
    "it gives shorter answers only": Play(status=400, message="max_tokens: 100000 > 64000, which is the maximum"),
    "it knows no such field": Play(status=400, message="Unsupported parameter: 'stop' is not supported"),
    "the body is too large": Play(status=413, message=SECRET),
    "it takes no temperature, and then fails": Play(status=400, message="`temperature` is deprecated for this model."),
    "a page": Play(body=b"<html>maintenance</html>", kind="text/html"),
    "JSON that is no answer": Play(body=b'data: {"a": 1}\n\ndata: [1]\n\ndata: 7\n\n'),
    "no JSON": Play(body=b"data: {{{\n\nevent: message_start\ndata: {\n\n"),
    "choices that are none": Play(body=b'data: {"choices": [{"index": {}, "delta": []}]}\n\n'),
    "text that is none": Play(body=b'data: {"choices": [{"index": 0, "delta": {"content": {"a": 1}}}]}\n\n'),
    "nothing": Play(body=b""),
    "it breaks off at once": Play(events=0),
    "an error event at once": Play(events=0, error=True),
    "it says that it is done, and has not begun": Play(body=b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", BROKEN)
async def test_the_next_one_is_asked_while_nothing_has_gone_to_the_caller(how: str, stream: bool, first: str) -> None:
    names = sorted(BOTH, key=lambda name: name != first)
    with far(*names) as house:
        house.doubles[first].say(BROKEN[how], Play(status=500))
        answered = await house.ask(chat("Guten Tag", stream=stream))
        assert answered.provider == names[1]
        told = house.reply.text if stream else house.reply.answer["choices"][0]["message"]["content"]
        assert told == "Guten Tag"


@pytest.mark.parametrize("name", BOTH)
async def test_a_whole_answer_that_breaks_off_is_asked_for_again(name: str) -> None:
    with far(name, "azure") as house:
        house.doubles[name].say(Play("Guten Tag", events=4))
        assert (await house.ask(chat("Hallo"))).provider == "azure"
        assert house.reply.answer["choices"][0]["message"]["content"] == "Hallo"


CUT = {
    "it breaks off": Play("Guten Tag", events=4),
    "an error event": Play("Guten Tag", events=4, error=True, message=SECRET),
    "no reason to end": Play(
        body=b'data: {"choices": [{"index": 0, "delta": {"content": "Guten Tag"}, "finish_reason": null}]}\n\n'
        b"event: message_start\n"
        b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}\n\n'
        b"data: [DONE]\n\n"
    ),
    "a reason that is none": Play("Guten Tag", finish="error"),
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("how", CUT)
async def test_nobody_else_is_asked_once_the_answer_has_begun(how: str, name: str) -> None:
    if (how, name) == ("no reason to end", "anthropic"):
        CUT[how] = Play(
            body=b'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, "content_block": '
            b'{"type": "text", "text": "Guten Tag"}}\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
        )
    with far(name, "azure") as house:
        house.doubles[name].say(CUT[how])
        failure = await refused(house, chat(stream=True))
        assert isinstance(failure, UpstreamFailed)
        assert failure.code == "provider_failed"
        assert house.reply.begun
        assert not house.reply.ended
        assert b"[DONE]" not in b"".join(house.reply.sent)
        assert house.doubles["azure"].heard == []
        assert house.record.usage.completion_tokens > 0, "what was told is paid for"


async def test_none_could() -> None:
    with far(*BOTH) as house:
        for name in BOTH:
            house.doubles[name].say(Play(status=500, message=SECRET))
        failure = await refused(house, chat())
        assert (type(failure), failure.code) == (UpstreamFailed, "providers_failed")
        for name in BOTH:
            house.doubles[name].say(Play(status=429, message=SECRET, headers={"retry-after": "30"}))
        failure = await refused(house, chat())
        assert (type(failure), failure.code, failure.retry_after) == (Overloaded, "providers_busy", 30)
        assert not house.reply.begun


async def test_a_request_that_is_wrong_is_wrong_everywhere() -> None:
    with far(*BOTH) as house:
        house.doubles["openai"].say(Play(status=400, message=f"Invalid value in messages: {SECRET}"))
        failure = await refused(house, chat())
        assert (type(failure), failure.code) == (BadRequest, "provider_refused")
        assert [each.provider for each in house.chosen] == ["openai"], "the caller is told whose word it is"
        assert house.doubles["anthropic"].heard == []
        assert ready(house) == list(BOTH)


async def test_wishes_of_how_to_sample_are_left_out_where_they_are_unknown() -> None:
    with far("anthropic") as house:
        house.doubles["anthropic"].say(Play(status=400, message="`temperature` is deprecated for this model."))
        for _ in range(2):
            await house.ask(chat(temperature=0.3, top_p=0.9))
        sent = [heard.body.get("temperature") for heard in house.doubles["anthropic"].heard]
        assert sent == [0.3, None, None]


async def test_it_is_left_alone_for_as_long_as_it_says() -> None:
    with far(*BOTH) as house:
        house.doubles["openai"].say(Play(status=429, headers={"retry-after": "42"}))
        await house.ask(chat())
        assert ready(house) == ["anthropic"]
        house.clock.now += 41.9
        assert ready(house) == ["anthropic"]
        house.clock.now += 0.1
        assert ready(house) == list(BOTH)
        await house.ask(chat())
        assert house.reply.answer["choices"]
        assert len(house.doubles["openai"].heard) == 2


async def test_while_it_is_probed_others_go_elsewhere() -> None:
    held = threading.Event()
    with far(*BOTH) as house:
        house.doubles["openai"].say(Play(status=503), Play(hold=held))
        await house.ask(chat())
        house.clock.now += 10
        probe = asyncio.create_task(house.ask(chat()))
        await asyncio.to_thread(until, lambda: len(house.doubles["openai"].heard) == 2)
        assert ready(house) == ["anthropic"]
        held.set()
        assert (await probe).provider == "openai"
        assert ready(house) == list(BOTH)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("status", "field"), [(401, "egress.providers.%s.key"), (403, "egress.providers.%s.key"), (404, "`models`")]
)
async def test_the_log_tells_the_administrator_what_to_do(
    status: int, field: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with far(name, "azure") as house:
        house.doubles[name].say(Play(status=status, message=f"Incorrect API key provided: sk-{SECRET}"))
        await house.ask(chat(SECRET))
        (line,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert field.replace("%s", name) in line.getMessage()
        assert ready(house) == ["azure"]
        house.clock.now += 299
        assert ready(house) == ["azure"]
    assert SECRET not in caplog.text


async def test_a_model_that_it_lacks_doesn_t_shut_out_its_others() -> None:
    with far("openai", models={"public": CLOUD_MODEL, "other": CLOUD_MODEL}) as house:
        house.doubles["openai"].say(Play(status=404))
        await refused(house, chat())
        assert ready(house) == []
        assert len(house.cloud.candidates("other", ["openai"], 1000)) == 1


async def test_retries_are_a_fifth_of_the_requests_at_most() -> None:
    with far(*BOTH) as house:
        house.doubles["openai"].say(*[Play(status=400, message="context_length_exceeded")] * 40)
        failed = 0
        for _ in range(40):
            try:
                await house.ask(chat())
            except UpstreamFailed:
                failed += 1
        asked = len(house.doubles["anthropic"].heard)
        assert asked + failed == 40
        assert 3 <= asked <= 8


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_cleared_is_tried_nowhere_else(name: str, stream: bool) -> None:
    asked = []

    async def clear(provider: str, *_: object) -> str:
        asked.append(provider)
        raise NotCleared("an original still stands in it")

    with far(name, "azure") as house:
        failure = await refused(house, chat(SECRET, stream=stream), clear=clear)
        assert (type(failure), failure.code) == (UpstreamFailed, "not_cleared")
        assert asked == [name]
        assert [double.received for double in house.doubles.values()] == [b"", b""]
        assert ready(house) == [name, "azure"]


@pytest.mark.parametrize("name", BOTH)
async def test_a_gate_that_fails_clears_nothing(name: str) -> None:
    asked = []

    async def clear(provider: str, *_: object) -> str:
        asked.append(provider)
        raise ConnectionError(SECRET)

    with far(name, "azure") as house:
        failure = await refused(house, chat(), clear=clear)
        assert (failure.code, asked) == ("not_cleared", [name])
        assert ready(house) == [name, "azure"]


@pytest.mark.parametrize("name", BOTH)
async def test_what_the_outlet_refuses_is_tried_nowhere_else(name: str) -> None:
    error = {"error": {"message": "the clearance has been used", "type": "server_error", "code": "outlet"}}
    with far(name, "azure") as house:
        house.doubles[name].say(Play(refusal=(403, error)))
        failure = await refused(house, chat())
        assert failure.code == "not_cleared"
        assert house.doubles["azure"].heard == []


async def test_a_provider_that_the_outlet_can_t_reach_is_as_one_that_fails() -> None:
    error = {"error": {"message": "the provider can't be reached", "type": "server_error", "code": "outlet"}}
    with far(*BOTH) as house:
        house.doubles["openai"].say(Play(refusal=(502, error)))
        assert (await house.ask(chat())).provider == "anthropic"


async def test_an_outlet_that_is_gone() -> None:
    with far(*BOTH) as house:
        house.sockets["openai"].unlink()
        assert (await house.ask(chat())).provider == "anthropic"


async def test_each_attempt_is_cleared_for_itself() -> None:
    with far(*BOTH) as house:
        house.doubles["openai"].say(Play(status=500))
        await house.ask(chat())
        assert [name for name, *_ in house.cleared] == list(BOTH)
        (first,), (second,) = (double.heard for double in house.doubles.values())
        assert [first.headers["x-clearance"], second.headers["x-clearance"]] == ["clearance-1", "clearance-2"]
        assert [body for *_, body in house.cleared] == [first.raw, second.raw]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("events", [0, 4])
async def test_a_silent_one_is_given_up(name: str, events: int) -> None:
    with far(name, "azure", first_token_seconds=0.2) as house:
        house.doubles[name].say(Play("Guten Tag", events=events, pause=threading.Event()))
        assert (await house.ask(chat("Hallo"))).provider == "azure"
        assert await asyncio.to_thread(house.doubles[name].broken.wait, PATIENCE), "its connection is closed"


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_closes_the_connection(name: str, stream: bool) -> None:
    with far(name) as house:
        house.doubles[name].say(Play("Guten Tag", events=4, pause=threading.Event()))
        asking = asyncio.create_task(house.ask(chat(stream=stream)))
        await asyncio.to_thread(until, lambda: house.doubles[name].heard)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(house.doubles[name].broken.wait, PATIENCE)
        assert ready(house) == [name]


@pytest.mark.parametrize("name", BOTH)
async def test_what_was_sent_may_cost_though_the_caller_left_before_the_first_token(name: str) -> None:
    with far(name) as house:
        house.doubles[name].say(Play("Guten Tag", hold=threading.Event()))
        asking = asyncio.create_task(house.ask(chat()))
        await asyncio.to_thread(until, lambda: house.doubles[name].heard)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert house.record.dispatched
        assert list(house.record.sent_to) == [name]


REFUSED = [Play(status=status, message="it went wrong") for status in (400, 401, 404, 413, 429, 500)]


@pytest.mark.parametrize("play", REFUSED)
async def test_what_was_refused_costs_nothing(play: Play) -> None:
    with far("openai") as house:
        house.doubles["openai"].say(play)
        await refused(house, chat())
        assert not house.record.dispatched
        assert list(house.record.sent_to) == ["openai"]


async def test_what_was_not_cleared_was_sent_to_nobody() -> None:
    async def clear(*_: object) -> str:
        raise NotCleared("no")

    with far("openai") as house:
        await refused(house, chat(), clear=clear)
        assert (house.record.dispatched, house.record.sent_to) == (False, {})


async def test_a_silent_one_may_cost_though_the_next_refuses() -> None:
    with far(*BOTH, first_token_seconds=0.2) as house:
        house.doubles["openai"].say(Play(hold=threading.Event()))
        house.doubles["anthropic"].say(Play(status=529))
        await refused(house, chat())
        assert house.record.dispatched
        assert list(house.record.sent_to) == list(BOTH)


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_an_answer_leaves_before_it_is_booked(stream: bool) -> None:
    async def unbooked() -> None:
        raise BooksUnavailable("the disk is full", code="books_unavailable")

    with far(*BOTH) as house:
        failure = await refused(house, chat(stream=stream), kept=unbooked)
        assert failure.code == "books_unavailable"
        assert not house.reply.begun
        assert house.doubles["anthropic"].heard == []


async def test_what_does_not_fit_one_goes_to_the_next() -> None:
    with far("anthropic", "openai") as house:
        assert (await house.ask(chat(n=2))).provider == "openai"
        failure = await refused(house, chat(logprobs=True))
        assert failure.code == "no_provider"
        assert house.doubles["anthropic"].heard == []


async def test_arguments_that_are_no_object_are_no_call_of_a_message() -> None:
    call = [("call_1", "look_up", "[1")]
    with far("openai", "azure") as house:
        house.doubles["openai"].say(Play("", call))
        house.doubles["azure"].say(Play("ja"))
        assert (await house.ask(message(), MESSAGE)).provider == "azure"
        assert json.loads(house.reply.body)["content"] == [{"type": "text", "text": "ja"}]


async def test_an_answer_that_is_far_longer_than_was_asked_for_is_given_up() -> None:
    with far("openai", "azure") as house:
        house.doubles["openai"].say(Play("a" * 20_000, size=1000))
        house.doubles["azure"].say(Play("b" * 12_000, size=1000))
        assert (await house.ask(chat())).provider == "azure"


async def test_one_that_never_comes_to_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ruminating:
        def body(self, *_: object, **__: object) -> dict[str, Any]:
            return {}

        async def events(self, *_: object) -> AsyncGenerator[Event, None]:
            while True:
                await asyncio.sleep(0)
                yield Thought()

    monkeypatch.setattr("appliance.dispatch.cloud.cloud._MOST_SECONDS", 0.05)
    with far(*BOTH) as house:
        monkeypatch.setitem(house.cloud._providers, "openai", Ruminating())
        assert (await house.ask(chat())).provider == "anthropic"


async def test_an_endless_line_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.dispatch.cloud.transport._LARGEST_EVENT", 1000)
    with far("openai", "azure") as house:
        house.doubles["openai"].say(Play(body=b"data: " + b" " * 100_000))
        assert (await house.ask(chat())).provider == "azure"


DONE = b'data: {"choices": [{"index": 0, "delta": {"content": "ja"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


async def test_an_event_of_very_many_lines_is_given_up() -> None:
    """Anthropic's SDK puts them together one by one, each time anew: that would hold up everybody for minutes."""
    with far("openai", "azure") as house:
        house.doubles["openai"].say(Play(body=b": ping\n" * 1200 + DONE), Play(body=b": ping\r\n\r\n" * 1200 + DONE))
        assert (await house.ask(chat())).provider == "azure"
        assert (await house.ask(chat())).provider == "openai"


async def test_calls_of_tools_without_end_are_given_up() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "a" * 50, "arguments": ""}}
    deltas = [{"tool_calls": [{**call, "index": index, "id": f"call_{index}"}]} for index in range(300)]
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    with far("openai", "azure") as house:
        house.doubles["openai"].say(Play(body=body + DONE))
        assert (await house.ask(chat())).provider == "azure"
