"""One provider's answer on its way to the caller: restored, counted, and seen to its proper end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from appliance.core import Request, Usage
from appliance.dispatch.cloud.events import Arguments, Call, Event, Finish, Text, Thought, Used
from appliance.dispatch.cloud.provider import Body, Failed, Why
from appliance.dispatch.cloud.restored import Restore, Restored
from appliance.dispatch.cloud.writer import Gathered, writer
from appliance.observe import Record

_CHARACTERS_PER_TOKEN = 3
"""For answers that don't tell their tokens; of German text, rather too many tokens than too few."""
_MOST_CHARACTERS_PER_TOKEN = 64
"""On the average of an answer. One that has more heeds no limit, or is no text."""
_MOST_TOKENS = 2**31


class Answer:
    """One attempt's. Where it fails, nothing of it is used for the next."""

    def __init__(self, request: Request, body: Body, restore: Restore) -> None:
        """`body` is what the provider was asked."""
        self._request = request
        self._restored = Restored(restore, json_text=_is_json(body))
        self._writer = writer(request)
        self._gathered = Gathered()
        self._finished: set[int] = set()
        self._finish: str | None = None
        self._calls: Counter[int] = Counter()
        self._characters = 0
        self._most_characters = _MOST_CHARACTERS_PER_TOKEN * (request.most_completion_tokens or _MOST_TOKENS)
        self._told = Usage()

    def take(self, event: Event) -> bytes:
        """The frames of a stream that can pass now; of a whole answer, none. Raises `Failed` for what is no answer."""
        if isinstance(event, Used):
            self._told.prompt_tokens = max(self._told.prompt_tokens, _count(event.prompt))
            self._told.completion_tokens = max(self._told.completion_tokens, _count(event.completion))
            return b""
        self._check(event)
        return b"".join(self._pass_on(event))

    def _check(self, event: Event) -> None:
        """Hold an event to what its fields are said to be: all of them come from outside."""
        if isinstance(event, Thought | Used):
            return
        choice = event.choice
        right = isinstance(choice, int) and 0 <= choice < self._request.choices and choice not in self._finished
        match event:
            case Text(_, text):
                right = right and isinstance(text, str)
            case Call(_, index, id_, name):
                right = right and index == self._calls[choice] and isinstance(id_, str) and isinstance(name, str)
            case Arguments(_, index, text):
                right = right and isinstance(text, str) and 0 <= index < self._calls[choice]
            case Finish(_, _, sequence):
                right = right and isinstance(sequence, str | None)
        if not right:
            raise Failed(Why.BROKEN)
        match event:
            case Text(_, text) | Arguments(_, _, text):
                self._characters += len(text)
            case Call(_, _, id_, name):
                self._calls[choice] += 1
                self._characters += len(id_) + len(name)
            case Finish(_, reason):
                self._finished.add(choice)
                self._finish = reason
        if self._characters > self._most_characters:
            raise Failed(Why.BROKEN)

    def _pass_on(self, event: Event) -> Iterator[bytes]:
        for each in self._restored.event(event):
            if self._request.stream:
                yield self._writer.event(each)
            else:
                self._gathered.note(each)

    def require_end(self) -> None:
        """Raises `Failed` for an answer that stopped without its proper end."""
        if len(self._finished) < self._request.choices:
            raise Failed(Why.BROKEN)

    def rest(self) -> bytes:
        """The last frames of a stream, or the whole answer. Raises `Failed` where it can't be told in this dialect."""
        usage = self._usage()
        return self._writer.end(usage) if self._request.stream else self._writer.whole(self._gathered, usage)

    def settle(self, record: Record) -> None:
        """Add what it took to `record`, however it ended. Prompt tokens that nobody told are not guessed."""
        usage, request = self._usage(), self._request
        record.finish = self._finish or record.finish
        record.usage.prompt_tokens = _bounded(
            record.usage.prompt_tokens + usage.prompt_tokens, request.most_prompt_tokens
        )  # fmt: skip
        both = _bounded(record.usage.completion_tokens + usage.completion_tokens, request.most_completion_tokens)
        record.usage.completion_tokens = max(both, usage.completion_tokens)

    def _usage(self) -> Usage:
        guessed = -(-self._characters // _CHARACTERS_PER_TOKEN)
        ended = len(self._finished) >= self._request.choices
        told = self._told.completion_tokens
        completion = told if told and ended else max(told, guessed)
        return Usage(
            _bounded(self._told.prompt_tokens, self._request.most_prompt_tokens),
            max(_bounded(completion, self._request.most_completion_tokens), min(completion, guessed)),
        )


def _bounded(tokens: int, most: int) -> int:
    return min(tokens, most or _MOST_TOKENS)


def _count(told: object) -> int:
    """A provider is not ours: what can be no count counts nothing."""
    return told if isinstance(told, int) and 0 <= told <= _MOST_TOKENS else 0


def _is_json(body: Body) -> bool:
    return "output_config" in body or body.get("response_format", {}).get("type", "text") != "text"
