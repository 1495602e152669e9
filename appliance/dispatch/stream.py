"""Watches a stream of server-sent events pass: whole frames out, and no false success at its end.

An engine whose worker is killed sends an error event, then `[DONE]`, under HTTP 200. So a stream counts as
finished only when the marks of a finished answer were seen; until then the closing frame is held back.
Marks are looked for in the raw bytes: inside JSON strings quotes are escaped, so no text can fake them.
"""

from __future__ import annotations

import json
import re

from appliance.core import Dialect, Request, Usage
from appliance.errors import UpstreamFailed

_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(?!abort"|error")')
_WORD = re.compile(r"[a-z_]{1,32}")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'(?:^|\n)(?:event: error\n|event: response\.failed\n|data:\s*\{"error"\s*:)')
_CONTENT = {Dialect.RESPONSES: b".delta\n", Dialect.MESSAGES: b"event: content_block_delta\n"}
"""What stands once in each event that carries tokens; a JSON string holds no line end, so no text can fake it."""
_DONE = re.compile(rb"(?:^|(?<=\n\n))data: ?\[DONE\]\n\n")
_MAX_FRAME = 8 * 2**20
_MOST_TOKENS = 2**31
_FINAL = {
    Dialect.RESPONSES: re.compile(rb"(?:^|\n)event: response\.(?:completed|incomplete)\n"),
    Dialect.MESSAGES: re.compile(rb"(?:^|\n)event: message_stop\n"),
}


class Stream:
    """One answer on its way through; holds at most one unfinished frame."""

    __slots__ = (
        "_choices",
        "_content",
        "_dialect",
        "_finished",
        "_held",
        "_rename",
        "_tokens",
        "_usage_wanted",
        "failed",
        "finish",
        "usage",
    )

    def __init__(self, request: Request, rename: tuple[bytes, bytes] | None = None) -> None:
        """`rename`: the engine's own model name and the public one to show instead, as JSON strings."""
        self._dialect = request.operation.dialect
        self._choices = request.choices
        self._usage_wanted = request.usage_wanted
        self._rename = rename
        self._held = b""
        self._finished: set[int] = set()
        self._content = _CONTENT.get(self._dialect)
        self._tokens = 0
        self.usage = Usage()
        self.finish: str | None = None
        """Why the answer ended, in the engine's word; of several, the last one's."""
        self.failed = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they come, return the whole frames that may pass (perhaps none).

        At an error event `failed` becomes true, and what came before it is returned. Raises
        `UpstreamFailed` at a frame over 8 MiB.
        """
        if self.failed:
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not data.endswith(b"\n\n"):
            whole, separator, self._held = data.rpartition(b"\n\n")
            if len(self._held) > _MAX_FRAME:
                raise UpstreamFailed("the engine sent an endless event", code="engine_failed")
            data = whole + separator
            if not data:
                return b""
        # a plain search first: the pattern alone took a tenth of all time spent on a stream
        if (b"error" in data or b"failed" in data) and (error := _ERROR.search(data)):
            self.failed = True
            data = data[: data.rfind(b"\n\n", 0, error.start() + 1) + 2] if error.start() else b""
        if b"[DONE]" in data:
            data = _DONE.sub(b"", data)
        if self._content is None:
            # not each event is a token for sure: the first of a choice tells the role, the last may only end it
            self._tokens += data.count(b"\n\n") - data.count(b'"role":')
            if _FINISH.search(data):
                self._note_finished(data)
        else:
            self._tokens += data.count(self._content)
            if _FINAL[self._dialect].search(data):
                self._finished.update(range(self._choices))
        if _USAGE.search(data):
            data = self._note_usage(data)
        if self._rename is not None:
            data = data.replace(b'"model":' + self._rename[0], b'"model":' + self._rename[1])
            data = data.replace(b'"model": ' + self._rename[0], b'"model": ' + self._rename[1])
        return data

    def close(self) -> bytes:
        """The engine has ended its answer: return the closing frame, if the dialect has one.

        Raises `UpstreamFailed` when the answer was not finished.
        """
        if self.failed or self._held or len(self._finished) < self._choices:
            raise UpstreamFailed("the engine broke off its answer; try again", code="engine_failed")
        return b"data: [DONE]\n\n" if self._dialect is Dialect.CHAT_COMPLETIONS else b""

    def settle(self) -> None:
        """However the stream ended: where no event told all tokens, count those that passed for sure."""
        told_all = self.usage.completion_tokens and len(self._finished) >= self._choices
        if not told_all:
            self.usage.completion_tokens = max(self.usage.completion_tokens, self._tokens)

    def _note_finished(self, data: bytes) -> None:
        for frame in data.split(b"\n\n"):
            if not _FINISH.search(frame):
                continue
            self._tokens -= 1
            try:
                choices = json.loads(frame[frame.index(b"data:") + 5 :])["choices"]
                self._finished.update(choice["index"] for choice in choices if _ends(choice["finish_reason"]))
                self.finish = word(choices[-1]["finish_reason"]) or self.finish
            except (ValueError, LookupError, TypeError):  # an endpoint is not ours: what is no choice ends none
                continue

    def _note_usage(self, data: bytes) -> bytes:
        frames = data.split(b"\n\n")[:-1]
        return b"".join(frame + b"\n\n" for frame in frames if not _USAGE.search(frame) or self._keeps_usage(frame))

    def _keeps_usage(self, frame: bytes) -> bool:
        try:
            event = json.loads(frame[frame.index(b"data:") + 5 :])
        except ValueError:
            return True
        if not isinstance(event, dict):
            return True
        note_usage(event, self.usage)
        self.finish = finish_of(event) or self.finish
        self._tokens -= self._dialect is Dialect.CHAT_COMPLETIONS
        ours = self._dialect is Dialect.CHAT_COMPLETIONS and event.get("choices") == [] and not self._usage_wanted
        return not ours


def _ends(reason: object) -> bool:
    return isinstance(reason, str) and reason not in ("abort", "error")


def word(told: object) -> str | None:
    """A reason to end as it may stand in a record: an endpoint is not ours, so what is no such word is none."""
    return told if isinstance(told, str) and _WORD.fullmatch(told) else None


def finish_of(answer: dict[str, object]) -> str | None:
    """Why a message or a response, or the event that ends its stream, came to its end."""
    for holder in (answer, answer.get("delta"), answer.get("response")):
        if isinstance(holder, dict):
            told = word(holder.get("stop_reason")) or word(holder.get("status"))
            if told is not None:
                return told
    return None


def note_usage(answer: object, usage: Usage) -> None:
    """Read token counts out of an answer or event of any dialect into `usage`; keeps the largest seen."""
    if not isinstance(answer, dict):
        return
    for holder in (answer, answer.get("response"), answer.get("message")):
        counts = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(counts, dict):
            prompt = counts.get("prompt_tokens", counts.get("input_tokens"))
            completion = counts.get("completion_tokens", counts.get("output_tokens"))
            usage.prompt_tokens = max(usage.prompt_tokens, _count(prompt))
            usage.completion_tokens = max(usage.completion_tokens, _count(completion))


def _count(told: object) -> int:
    """An endpoint is not ours: what can be no count counts nothing. Over 64 bits, it would stop the books for good."""
    return told if isinstance(told, int) and told <= _MOST_TOKENS else 0
