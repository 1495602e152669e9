"""What all bodies share: strict parsing, errors that name the field, and bounds.

A field is one of three kinds. A plain one is checked and passed on. One made by `ignored()` is documented
by OpenAI or Anthropic, doesn't apply here, is accepted and never passed on. Any other is refused by name.
What the engine hears is serialised from the parsed body, so an unknown key can't travel along.
"""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance.config import Limits
from appliance.errors import BadRequest

B = TypeVar("B", bound="Part")
T = TypeVar("T")

Text = Annotated[str, StringConstraints(strict=True)]
NonEmpty = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512)]
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list that is given up at its first wrong item: pydantic would report each of two million."""
Json = dict[str, Any]
"""JSON that callers design themselves (schemas, arguments); `Body.check` bounds its depth and size."""

Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, Field(ge=1)]
TokenIds = Annotated[Items[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Stop = (
    Annotated[Text, Field(min_length=1, max_length=1024)] | Items[Annotated[Text, Field(min_length=1, max_length=1024)]]
)
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CACHE = "Prefix caching is automatic; the engine needs no hint."
ACCOUNT = "Belongs to the provider's own platform; keys and audit do it here."
_MOST_VALUES = 1_000_000
"""A full batch of token ids fits: 4 MiB of them are about 800,000."""
_MOST_STRUCTURE = 50_000
"""Keys, lists and objects in a body; each takes a hundred times the time and memory of a number."""
_MOST_STRINGS = 100_000
UNKNOWN_CONTEXT = 131_072
"""Tokens that a model may take whose context length isn't told: only an endpoint's, and its config can tell it."""
_TEMPLATE_TOKENS = 256
"""Tokens that a model's chat template adds of its own at most, such as a default system prompt."""
_MEDIA = (b'"data:', b'"media_type":', b'"input_audio":')
"""What stands in a payload with an image or audio, in one dialect or another."""
_MOST_ERRORS = 20
_LONGEST_ECHO = 200
"""Characters of a caller's own words in an error."""
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"?(\s*+:)?|[\[\]{}]', re.DOTALL)


class Part(BaseModel):
    """A piece of a body. Unknown keys are refused, numbers and strings are not turned into each other."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def ignored(why: str) -> Any:
    """A documented field that is accepted and not passed on; `why` is printed in docs/api.md."""
    return Field(default=None, exclude=True, description=why)


def only_data_url(url: str) -> str:
    """Media come inside the request: the appliance fetches nothing."""
    if not url.startswith("data:"):
        raise ValueError("only `data:` URLs are taken; the appliance fetches nothing from the network")
    return url


class Bound:
    """What a body is held to: the configured limits and the context length of the model it asks for."""

    __slots__ = ("context_length", "limits")

    def __init__(self, limits: Limits, context_length: int | None) -> None:
        self.limits = limits
        self.context_length = context_length

    def most(self, param: str, value: int | None, most: int) -> None:
        """Refuse `value` over `most`, naming the field and the limit."""
        if value is not None and value > most:
            refuse(param, f"{param} may be at most {most} here", "limit_exceeded")

    def output_tokens(self, param: str, value: int | None) -> None:
        """Refuse to generate more tokens than the model's context holds."""
        if value is not None and self.context_length is not None and value >= self.context_length:
            refuse(
                param,
                f"{param} leaves no room for a prompt: this model's context length is {self.context_length} tokens",
                "context_length_exceeded",
            )

    def token_ids(self, param: str, value: object) -> None:
        """Refuse a prompt given as token ids that is longer than the model's context."""
        if self.context_length is None or not isinstance(value, list) or isinstance(value[0], str):
            return
        if (max(map(len, value)) if isinstance(value[0], list) else len(value)) > self.context_length:
            refuse(
                param,
                f"{param} is too long: this model's context length is {self.context_length} tokens",
                "context_length_exceeded",
            )

    def json(self, param: str, value: object, *, schema: bool = True) -> None:
        """Refuse JSON that is nested too deep or holds too many values, or as a schema too long a pattern."""
        depth, count, level = 0, 0, [value]
        while level:
            depth += 1
            count += len(level)
            if depth > self.limits.json_depth:
                refuse(param, f"{param} is nested more than {self.limits.json_depth} deep", "limit_exceeded")
            if count > self.limits.json_values:
                refuse(param, f"{param} holds more than {self.limits.json_values} values", "limit_exceeded")
            if schema:
                self._patterns(param, level)
            level = [
                child
                for item in level
                if isinstance(item, dict | list)
                for child in (item.values() if isinstance(item, dict) else item)
            ]

    def _patterns(self, param: str, level: list[Any]) -> None:
        for item in level:
            if isinstance(item, dict):
                named = item.get("patternProperties")
                patterns = [item.get("pattern"), *(named if isinstance(named, dict) else ())]
                longest = max(len(pattern) if isinstance(pattern, str) else 0 for pattern in patterns)
                if longest > self.limits.pattern_length:
                    most = self.limits.pattern_length
                    refuse(param, f"a pattern in {param} may have at most {most} characters here", "limit_exceeded")


def refuse(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    """Raise the `BadRequest` that names `param`."""
    raise BadRequest(message, param=param, code=code)


class Body(Part):
    """A whole request body."""

    takes_priority: ClassVar[bool] = True
    """Whether the engine's own body has a field `priority`."""

    model: NonEmpty = Field(description="Public name of the model, as listed by /v1/models.")

    def check(self, bound: Bound) -> None:
        """Hold the body to `bound`. Raises `BadRequest` naming the field."""

    def wants_stream(self) -> bool:
        """Whether the answer is to come as server-sent events."""
        return bool(getattr(self, "stream", False))

    def wants_usage(self) -> bool:
        """Whether the caller asked for usage in the stream."""
        return True

    def wanted_choices(self) -> int:
        """How many answers the engine must finish."""
        return 1

    def prompts(self) -> int:
        """How many prompts there are."""
        return 1

    def prepare(self, output_tokens: int | None) -> None:
        """Set what only we may set, and the card's `output_tokens` where the caller named no limit."""

    def output_limit(self) -> int | None:
        """Tokens of one answer at most, once `payload` has set what is ours to set; None: what the context holds."""
        limits = (getattr(self, name, None) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
        return max(filter(None, limits), default=None)

    def most_tokens(self, payload: bytes, context_length: int | None) -> tuple[int, int]:
        """Tokens of the prompt and of all answers that the engine can come to at most with this `payload`."""
        room = context_length or UNKNOWN_CONTEXT
        prompt = room * self.prompts()
        if not any(mark in payload for mark in _MEDIA):  # what media come to is known to the model only
            text = tokens_in(payload)
            if b'"tool' in payload or b'"function_call"' in payload:  # templates write them out with more space
                text += 2 * sum(payload.count(mark) for mark in b",:[]{}")
            prompt = min(text + _TEMPLATE_TOKENS, prompt)
        return prompt, self.wanted_choices() * min(self.output_limit() or room, room)

    def payload(self, upstream_model: str, output_tokens: int | None = None, priority: int | None = None) -> bytes:
        """The JSON that the engine hears: known fields that the caller set, and ours.

        `priority` (lower is earlier) is for engines that schedule by it; None where it is not one.
        """
        self.prepare(output_tokens)
        self.model = upstream_model
        payload = self.__pydantic_serializer__.to_json(self, exclude_unset=True, by_alias=True)
        if priority is None or not self.takes_priority:
            return payload
        # no field of ours, since a caller's own would then be one, too
        return b'%b,"priority":%d}' % (payload[:-1], priority)


def tokens_in(text: bytes) -> int:
    """Tokens that `text` (UTF-8) comes to at most: each is a byte at least, of the text as tokenizers normalize it."""
    if text.isascii():
        return len(text)
    plain = text.decode()
    # one character may become 18: U+FDFA, with the tokenizers of many embedding models
    forms = (unicodedata.normalize(form, plain) for form in ("NFC", "NFKC"))
    return max([len(text), *(len(form.encode()) for form in forms if form is not plain)])


def parse(kind: type[B], raw: bytes) -> B:
    """Parse `raw` JSON as `kind`. Raises `BadRequest` whose `param` names the offending field."""
    _bound_work(raw)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as cause:
        raise _explain(raw, cause) from None


def _bound_work(raw: bytes) -> None:
    """Refuse a body that takes long to parse for its size; ordinary ones cost three counts at the speed of C."""
    if raw.count(b",") <= _MOST_VALUES and _structure(raw) <= _MOST_STRUCTURE:
        return
    # text may hold as many commas and brackets as it likes: count again outside of strings, which are every
    # second piece between quotes once the escaped ones are gone
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') <= 2 * _MOST_STRINGS:
        plain = b"".join(plain.split(b'"')[::2])
        if plain.count(b",") <= _MOST_VALUES and _structure(plain) <= _MOST_STRUCTURE:
            return
    message = f"the body may hold at most {_MOST_VALUES} values and {_MOST_STRUCTURE} keys, lists and objects here"
    refuse("body", message, "limit_exceeded")


def _structure(raw: bytes) -> int:
    return raw.count(b":") + raw.count(b"{") + raw.count(b"[")


def _explain(raw: bytes, cause: ValidationError) -> BadRequest:
    errors = cause.errors(include_input=False, include_url=False, include_context=False)[:_MOST_ERRORS]
    if errors[0]["type"] == "json_invalid":
        message = str(errors[0]["msg"]).removeprefix("Invalid JSON: ")
        if "recursion limit" in message:
            param = deepest_key(raw)
            return BadRequest(f"{param or 'the body'} is nested too deep", param=param, code="limit_exceeded")
        return BadRequest(f"the body is not valid JSON: {message}", code="invalid_json")
    body = json.loads(raw)
    param, error = max(
        ((field_path(body, tuple(error["loc"])), error) for error in errors),
        key=lambda found: found[0].count(".") + found[0].count("["),
    )
    param = param[:_LONGEST_ECHO]
    match error["type"]:
        case "extra_forbidden":
            return BadRequest(f"unknown field: {param}", param=param, code="unknown_field")
        case "missing":
            return BadRequest(f"missing field: {param}", param=param, code="missing_field")
    message = str(error["msg"]).removeprefix("Value error, ")[:_LONGEST_ECHO]
    return BadRequest(
        f"{param or 'the body'}: {message[:1].lower()}{message[1:]}", param=param or None, code="invalid_value"
    )


def field_path(body: object, location: tuple[str | int, ...]) -> str:
    """`("messages", 0, "user", "content")` as `messages[0].content`: what the caller wrote, without union tags."""
    path, here = "", body
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(part, int) and isinstance(here, list) and part < len(here):
            path, here = f"{path}[{part}]", here[part]
        elif isinstance(part, str) and isinstance(here, dict) and (part in here or last):
            path, here = f"{path}.{part}" if path else part, here.get(part)
    return path


def deepest_key(raw: bytes) -> str | None:
    """The top-level key under which `raw`, which may not be valid JSON, is nested deepest."""
    depth, deepest, key, found = 0, 0, b"", b""
    for token in islice(_TOKEN.finditer(raw), 2 * _MOST_STRUCTURE):
        match token[0][:1]:
            case b'"':
                if depth == 1 and token[2]:
                    key = token[1]
            case b"{" | b"[":
                depth += 1
                if depth > deepest:
                    deepest, found = depth, key
            case _:
                depth -= 1
    return found[:64].decode(errors="replace") if found else None
