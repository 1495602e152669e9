"""The gate: what may leave, and in which words. Whatever errs or doubts, stays."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.config import Privacy, Provider
from appliance.core import DataClass, highest
from appliance.privacy import fields, placeholders
from appliance.privacy.answers import Checked
from appliance.privacy.asked import Asked, Detect, DetectorFailed, Explained, Explanation
from appliance.privacy.forms import Traces, encoded
from appliance.privacy.kinds import TREATMENTS, Kind, Span
from appliance.privacy.mask import Mask
from appliance.privacy.notes import note, where
from appliance.privacy.operations import SHAPES
from appliance.privacy.policy import Decision, decide
from appliance.privacy.tickets import Tickets
from appliance.privacy.verdict import Held, Verdict

_LONGEST_NAME = 64
"""Characters of a tool's name that all providers take."""
_LONGEST = 1000
"""Characters of a word, and of a find. Longer ones are nobody's text, and take time by the square of them."""
_ENDLESS = re.compile(rf"(?<![^\W_])[^\W_]{{{_LONGEST + 1}}}")
_COARSE = frozenset({Kind.AGE, Kind.DATE_OF_BIRTH, Kind.DATE})
"""What a stricter look takes generalised words for, with words beside them."""


class _Stays(Exception):
    """The request stays in the house; the message says why and what to do, and holds nothing of it."""

    def __init__(self, held: Held, why: str) -> None:
        super().__init__(why)
        self.held = held


@dataclass(slots=True)
class _Case:
    """What is known of a request so far."""

    asked: Asked
    decision: Decision
    data_class: DataClass
    fields: fields.Fields = field(default_factory=lambda: fields.Fields(""))
    spans: list[list[Span]] = field(default_factory=list)
    mask: Mask = field(default_factory=lambda: Mask(()))
    masked: list[str] = field(default_factory=list)
    traces: Traces = field(default_factory=lambda: Traces(()))
    payload: bytes = b""

    def verdict(self, held: Held | None, why: str = "") -> Verdict:
        found, decision = dict(self.mask.found), self.decision
        said = Verdict(self.data_class, found, held, why, rule=decision.rule, purpose=decision.purpose)
        if held is not None:
            return said
        return replace(said, providers=decision.providers, payload=self.payload, originals=self.mask.originals)


class Gate:
    """Judges requests, and clears the final bytes of those that may leave. One for all of an appliance's."""

    def __init__(
        self,
        privacy: Privacy,
        providers: Mapping[str, Provider],
        detect: Detect,
        key: Ed25519PrivateKey,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since 1970. `key` signs clearances."""
        self._privacy = privacy
        self._providers = providers
        self._detect = Checked(detect)
        self._tickets = Tickets(providers, key, clock)

    async def protect(self, asked: Asked) -> Verdict:
        """What may become of a request. Whatever fails on the way keeps it in the house; raises nothing but
        `CancelledError`. A verdict that lets it out has a ticket for `clear`.
        """
        case, verdict = await self._judged(asked)
        if verdict.held is not None:
            return verdict
        ticket = self._tickets.issue(verdict.providers, case.traces, case.payload)
        if ticket is None:
            return case.verdict(Held.GATE, "too many requests are on their way out; try again soon")
        return replace(verdict, ticket=ticket)

    async def explain(self, asked: Asked) -> Explanation:
        """What `protect` would say, and what was found where. Looks also at what the policy would keep anyway."""
        case, verdict = await self._judged(asked, look_anyway=True)
        texts = zip(case.fields.texts, case.spans or [[] for _ in case.fields.texts], strict=True)
        return Explanation(verdict, tuple(Explained(text.path, text.text, tuple(spans)) for text, spans in texts))

    def clear(self, ticket: str, provider: str, method: str, path: str, body: bytes) -> str:
        """The clearance of a final request to `provider`, for its header. Raises `NotCleared`.

        `path` is the request's target, with its query. The body has to be JSON that says what the verdict's
        payload says, in whichever dialect, and nothing else.
        """
        return self._tickets.clear(ticket, provider, method, path, body)

    def forget(self, ticket: str) -> None:
        """Clear nothing more for this ticket."""
        self._tickets.forget(ticket)

    async def _judged(self, asked: Asked, *, look_anyway: bool = False) -> tuple[_Case, Verdict]:
        case = _Case(asked, Decision("stay", Held.GATE), asked.floor)
        try:
            async with asyncio.timeout(asked.limit_seconds):
                await self._judge(case, look_anyway=look_anyway)
        except _Stays as why:
            return case, case.verdict(why.held, str(why))
        except (DetectorFailed, TimeoutError):
            return case, case.verdict(Held.DETECTOR, "the detectors failed or took too long; see privacy.detectors")
        except Exception as error:  # a mistake here or a strange input: either way nothing may leave
            note(where(error))
            return case, case.verdict(Held.GATE, "the gate failed; what it printed says where")
        return case, case.verdict(None)

    async def _judge(self, case: _Case, *, look_anyway: bool) -> None:
        """Returns for what may leave, raises `_Stays` for anything else."""
        asked = case.asked
        case.decision = self._decided(asked.floor, asked.use_case)
        if not look_anyway:
            self._refuse_what_no_rule_lets_out(case)
        if asked.operation not in SHAPES:
            raise _Stays(Held.OPERATION, "requests of this kind are answered in the house only")
        if len(asked.payload) > self._privacy.gate.most_kib * 1024:
            raise _Stays(Held.TOO_LARGE, f"it has more than privacy.gate.most_kib: {self._privacy.gate.most_kib}")
        payload = json.loads(asked.payload)
        case.fields = fields.texts(asked.operation, payload)
        if case.fields.unreadable is not None:
            raise _Stays(Held.UNREADABLE, f"{case.fields.unreadable}; leave it out")
        if any(_ENDLESS.search(text.text) for text in case.fields.texts):
            raise _Stays(Held.UNREADABLE, f"a text holds a word of more than {_LONGEST} characters; leave it out")
        await self._refuse_other_languages(case)
        await self._look(case)
        if any(span.kind is Kind.SECRET for spans in case.spans for span in spans):
            raise _Stays(Held.SECRET, "it holds what looks like a password or a key; leave it out")
        if case.decision.held is not None:
            raise _stays_by(case)
        self._write(case, payload)
        await self._look_again(case)

    def _decided(self, data_class: DataClass, use_case: str | None) -> Decision:
        return decide(self._privacy, self._providers, data_class, use_case)

    def _refuse_what_no_rule_lets_out(self, case: _Case) -> None:
        """What is found can only raise the class: where none from the floor on may leave, nobody need look."""
        classes = (each for each in DataClass if each.rank >= case.asked.floor.rank)
        if all(self._decided(each, case.asked.use_case).held is not None for each in classes):
            raise _stays_by(case)

    async def _refuse_other_languages(self, case: _Case) -> None:
        languages = await self._detect.language([view.text for view in case.fields.views])
        if any(language and language not in self._privacy.gate.languages for language in languages):
            told = ", ".join(self._privacy.gate.languages)
            raise _Stays(Held.LANGUAGE, f"a text is in a language that privacy.gate.languages doesn't name: {told}")

    async def _look(self, case: _Case) -> None:
        """Find and mask, and decide again by what was found."""
        case.spans = case.fields.spread(await self._detect.find([view.text for view in case.fields.views]))
        if any(span.end - span.start > _LONGEST for spans in case.spans for span in spans):
            raise _Stays(Held.UNREADABLE, f"a text holds something of more than {_LONGEST} characters; leave it out")
        kinds = {span.kind for spans in case.spans for span in spans}
        case.data_class = highest(case.asked.floor, *(TREATMENTS[kind].raises for kind in kinds))
        case.decision = self._decided(case.data_class, case.asked.use_case)
        given = [text.text for text in case.fields.texts]
        case.mask = Mask(self._privacy.generalise)
        case.masked = case.mask.apply(given, case.spans)
        too_long = {
            text.text
            for text, new in zip(case.fields.texts, case.masked, strict=True)
            if text.form == "name" and text.path[-1:] == ("name",) and len(new) > _LONGEST_NAME
        }
        if too_long:  # a placeholder in it made it so; one for all of it is short
            whole = [[Span(0, len(text), Kind.WORD)] if text in too_long else [] for text in given]
            case.mask = Mask(self._privacy.generalise)
            case.masked = case.mask.apply(given, [new or old for new, old in zip(whole, case.spans, strict=True)])

    def _write(self, case: _Case, payload: Any) -> None:
        """What would be sent, with nothing in it that was found or can't be read."""
        case.payload = fields.replaced(payload, case.fields, case.masked)
        if any(map(encoded, case.masked)):
            raise _Stays(Held.UNREADABLE, "a text holds something encoded; send it as plain text, or leave it out")
        case.traces = Traces(case.mask.traces, case.mask.names)
        if (form := case.traces.remain(case.payload, [payload.get("model", "")])) is not None:
            raise _Stays(Held.REMAINS, f"something that was found still stands in it: {form}")

    async def _look_again(self, case: _Case) -> None:
        """At what would be sent, and more strictly."""
        views = [view.text for view in fields.texts(case.asked.operation, json.loads(case.payload)).views]
        for text, spans in zip(views, await self._detect.find(views, strict=True), strict=True):
            doubts = _not_ours(text, spans, case.mask.coarse)
            if Kind.SECRET in doubts:
                raise _Stays(Held.SECRET, "it holds what might be a password or a key; leave it out")
            if doubts:
                raise _Stays(Held.DOUBT, f"after masking it may still hold: {', '.join(sorted(doubts))}")
        if self._privacy.gate.words == "known":
            for text, places in zip(views, await self._detect.known(views), strict=True):
                if _not_ours(text, [Span(start, end, Kind.WORD) for start, end in places], case.mask.coarse):
                    raise _Stays(Held.WORDS, "it holds a word that nobody here knows, see privacy.gate.words")


def _stays_by(case: _Case) -> _Stays:
    held = case.decision.held or Held.POLICY
    if held is Held.NO_PROVIDER:
        return _Stays(held, f"no provider fits {case.decision.rule}; see egress.providers: region and agreement")
    return _Stays(held, f"no rule of privacy.policy lets {case.data_class} requests of this use case leave")


def _not_ours(text: str, finds: Iterable[Span], coarse: Iterable[str]) -> set[Kind]:
    """What was found that is more than placeholders and generalised words."""
    ours = [(each.start, each.end + len(each.ending)) for each in placeholders.find(text)]
    for words in coarse:
        ours += [match.span() for match in re.finditer(re.escape(words), text)]
    return {find.kind for find in finds if not _is_ours(text, find, ours)}


def _is_ours(text: str, find: Span, ours: Sequence[tuple[int, int]]) -> bool:
    here = [(start, end) for start, end in ours if start < find.end and find.start < end]
    left = [text[at] for at in range(find.start, find.end) if not any(start <= at < end for start, end in here)]
    return not any(map(str.isdigit if here and find.kind in _COARSE else str.isalnum, left))
