"""What /admin/policy/explain takes and shows. `appliance policy test` takes and shows the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from appliance.api.bodies import anthropic, chat
from appliance.api.bodies.base import Body, Bound, Json, Part, Text, parse, refuse
from appliance.config import Accounts, Limits, Privacy
from appliance.config.accounts import UseCaseName
from appliance.core import DataClass, highest
from appliance.errors import BadRequest
from appliance.privacy.asked import Asked, Explanation
from appliance.privacy.kinds import TREATMENTS, Span
from appliance.privacy.mask import Mask
from appliance.privacy.verdict import Held

_BODIES: Mapping[str, type[Body]] = {"chat": chat.ChatCompletions, "message": anthropic.Messages}
CHECKS: Mapping[str, frozenset[Held]] = {
    "operation": frozenset({Held.OPERATION}),
    "size": frozenset({Held.TOO_LARGE}),
    "readable": frozenset({Held.UNREADABLE}),
    "language": frozenset({Held.LANGUAGE}),
    "secrets": frozenset({Held.SECRET}),
    "policy": frozenset({Held.POLICY, Held.NO_PROVIDER}),
    "remains": frozenset({Held.REMAINS}),
    "second_look": frozenset({Held.DOUBT}),
    "words": frozenset({Held.WORDS}),
}
"""What the gate looks at, in its order, and what it says where it is not well."""


class Explain(Part):
    """POST /admin/policy/explain."""

    text: Annotated[Text, Field(min_length=1)] | None = Field(None, description="What a user might write.")
    request: Json | None = Field(None, description="Or a whole request, as it would be sent.")
    operation: Literal["chat", "message"] = Field(
        "chat", description="To where: `chat` is `/v1/chat/completions`, `message` is `/v1/messages`."
    )
    use_case: UseCaseName | None = Field(None, description="As in `X-Use-Case`, of `accounts.use_cases`.")
    data_class: DataClass | None = Field(
        None, description="As in `X-Data-Class`, or of a key: `public`, `internal`, `confidential`, `personal`."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.request is None):
            raise ValueError("give either text or request")
        return self

    def asked(self, privacy: Privacy, accounts: Accounts, limits: Limits) -> Asked:
        """As the gate is asked about a request. Raises `BadRequest`."""
        floor = highest(privacy.floor, self.data_class)
        if self.use_case is not None:
            use_case = accounts.use_cases.get(self.use_case)
            if use_case is None:
                refuse("use_case", "use_case is none of accounts.use_cases in the config")
            floor = highest(floor, use_case.data_class)
        return Asked(self.operation, self._payload(limits), floor, self.use_case, privacy.detectors.seconds)

    def _payload(self, limits: Limits) -> bytes:
        said = self.request
        if said is None:
            said = {"model": "model", "messages": [{"role": "user", "content": self.text}]}
            said |= {"max_tokens": 1} if self.operation == "message" else {}
        try:
            body = parse(_BODIES[self.operation], json.dumps(said).encode())
            body.check(Bound(limits, None))
        except BadRequest as refusal:
            param = f"request.{refusal.param}" if refusal.param else "request"
            raise BadRequest(f"request: {refusal}", param=param, code=refusal.code) from None
        return body.payload(body.model)


def explained(explanation: Explanation, privacy: Privacy, *, words: bool = False) -> dict[str, Any]:
    """What would happen, and why: places and kinds of what was found, and the texts as they would leave.

    `words`: with what was found itself, for whoever has it before them anyway.
    """
    verdict, texts = explanation.verdict, explanation.texts
    masked = Mask(privacy.generalise).apply([each.text for each in texts], [each.spans for each in texts])
    return {
        "object": "policy.explanation",
        "leaves": verdict.held is None,
        "data_class": verdict.data_class,
        "held": verdict.held,
        "why": verdict.why or None,
        "rule": verdict.rule or None,
        "purpose": verdict.purpose or None,
        "providers": list(verdict.providers),
        "found": dict(verdict.found),
        "checks": [{"check": name, "passed": passed} for name, passed in _checks(verdict.held, privacy)],
        "texts": [
            {
                "path": path_of(text.path),
                "masked": new,
                "finds": [_told(span) | ({"words": text.text[span.start : span.end]} if words else {})
                          for span in text.spans],
            }
            for text, new in zip(texts, masked, strict=True)
        ],
    }  # fmt: skip


def _told(span: Span) -> dict[str, Any]:
    return {
        "start": span.start, "end": span.end, "kind": span.kind, "raises_to": TREATMENTS[span.kind].raises,
        "score": round(span.score, 3), "source": span.source,
    }  # fmt: skip


def _checks(held: Held | None, privacy: Privacy) -> Iterator[tuple[str, bool | None]]:
    """What was looked at, in order: True where it was well, False where it was not, None from there on."""
    passed: bool | None = None if held in (Held.DETECTOR, Held.GATE) else True
    for name, failures in CHECKS.items():
        if name == "words" and privacy.gate.words == "any":
            continue
        if held in failures:
            yield name, False
            passed = None
        else:
            yield name, passed


def path_of(path: tuple[str | int, ...]) -> str:
    """`("messages", 0, "content")` as `messages[0].content`."""
    written = ""
    for step in path:
        written += f"[{step}]" if isinstance(step, int) else f".{step}" if written else step
    return written
