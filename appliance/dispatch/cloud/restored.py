"""Puts the originals back into an answer, event by event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from appliance.dispatch.cloud.events import Arguments, Call, Event, Finish, Text


class Restore(Protocol):
    """Shaped like `privacy.restore.Restorer`."""

    def feed(self, channel: str, text: str, *, json: bool = False) -> str:
        """What of `text` can be shown now; the rest is held back until more of the channel comes.

        `json`: it is part of a JSON document, inside of whose strings the originals go.
        """

    def finish(self, channel: str) -> str:
        """What was held back."""


class Restored:
    """One answer on its way. Holds back per choice what could be the beginning of a placeholder."""

    def __init__(self, restore: Restore, *, json_text: bool) -> None:
        """`json_text`: the text of the answer is to be JSON, too."""
        self._restore = restore
        self._json_text = json_text
        self._open: dict[int, Text | Arguments] = {}
        """By choice, an event of the channel that was written to last."""

    def event(self, event: Event) -> Iterator[Event]:
        """The events that can pass on now in place of `event`."""
        match event:
            case Text(choice, text, refusal):
                yield from self._switch(event)
                if shown := self._restore.feed(_channel(event), text, json=self._json_text and not refusal):
                    yield Text(choice, shown, refusal)
            case Arguments(choice, index, text):
                yield from self._switch(event)
                if shown := self._restore.feed(_channel(event), text, json=True):
                    yield Arguments(choice, index, shown)
            case Call(choice, index, id_, name):
                yield from self._flush(choice)
                yield Call(choice, index, id_, self._whole(name))
            case Finish(choice, reason, sequence):
                yield from self._flush(choice)
                yield Finish(choice, reason, self._whole(sequence) if sequence is not None else None)
            case _:
                yield event

    def _whole(self, text: str) -> str:
        return self._restore.feed("name", text) + self._restore.finish("name")

    def _switch(self, event: Text | Arguments) -> Iterator[Event]:
        last = self._open.get(event.choice)
        if last is not None and _channel(last) != _channel(event):
            yield from self._flush(event.choice)
        self._open[event.choice] = event

    def _flush(self, choice: int) -> Iterator[Event]:
        last = self._open.pop(choice, None)
        if last is None or not (rest := self._restore.finish(_channel(last))):
            return
        match last:
            case Text(_, _, refusal):
                yield Text(choice, rest, refusal)
            case Arguments(_, index):
                yield Arguments(choice, index, rest)


def _channel(event: Text | Arguments) -> str:
    if isinstance(event, Arguments):
        return f"{event.choice}.{event.index}"
    return f"{event.choice}.{'refusal' if event.refusal else 'text'}"
