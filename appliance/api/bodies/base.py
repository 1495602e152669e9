"""What all bodies share: strict parsing, errors that name the field, and bounds.

A field is one of three kinds. A plain one is checked and passed on. One made by `ignored()` is documented
by OpenAI or Anthropic, doesn't apply here, is accepted and never passed on. Any other is refused by name.
What the engine hears is serialised from the parsed body, so an unknown key can't travel along.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance.config import Limits
from appliance.errors import BadRequest

B = TypeVar("B", bound="Body")

Text = Annotated[str, StringConstraints(strict=True)]
NonEmpty = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512)]
Json = dict[str, Any]
"""JSON that callers design themselves (schemas, arguments); `Body.check` bounds its depth and size."""

Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Stop = (
    Annotated[Text, Field(min_length=1, max_length=1024)] | list[Annotated[Text, Field(min_length=1, max_length=1024)]]
)
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CACHE = "Prefix caching is automatic; the engine needs no hint."
ACCOUNT = "Belongs to the provider's own platform; keys and audit do it here."


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

    __slots__ = ("context_length", "limits", "text_bytes")

    def __init__(self, limits: Limits, context_length: int | None, text_bytes: int | None = None) -> None:
        self.limits = limits
        self.context_length = context_length
        self.text_bytes = text_bytes

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

    def json(self, param: str, value: object) -> None:
        """Refuse JSON that is nested too deep or holds too many values."""
        depth, count, level = 0, 0, [value]
        while level:
            depth += 1
            count += len(level)
            if depth > self.limits.json_depth:
                refuse(param, f"{param} is nested more than {self.limits.json_depth} deep", "limit_exceeded")
            if count > self.limits.json_values:
                refuse(param, f"{param} holds more than {self.limits.json_values} values", "limit_exceeded")
            level = [
                child
                for item in level
                if isinstance(item, dict | list)
                for child in (item.values() if isinstance(item, dict) else item)
            ]


def refuse(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    """Raise the `BadRequest` that names `param`."""
    raise BadRequest(message, param=param, code=code)


class Body(Part):
    """A whole request body."""

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

    def prepare(self, output_tokens: int | None) -> None:
        """Set what only we may set, and the card's `output_tokens` where the caller named no limit."""

    def payload(self, upstream_model: str, output_tokens: int | None = None) -> bytes:
        """The JSON that the engine hears: known fields that the caller set, and ours."""
        self.prepare(output_tokens)
        self.model = upstream_model
        return self.__pydantic_serializer__.to_json(self, exclude_unset=True, by_alias=True)


def parse(kind: type[B], raw: bytes) -> B:
    """Parse `raw` JSON as `kind`. Raises `BadRequest` whose `param` names the offending field."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as cause:
        raise _explain(raw, cause.errors(include_input=False, include_url=False, include_context=False)) from None


def _explain(raw: bytes, errors: list[Any]) -> BadRequest:
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
    match error["type"]:
        case "extra_forbidden":
            return BadRequest(f"unknown field: {param}", param=param, code="unknown_field")
        case "missing":
            return BadRequest(f"missing field: {param}", param=param, code="missing_field")
    message = str(error["msg"]).removeprefix("Value error, ")
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
    depth, deepest, key, found = 0, 0, "", None
    text, position = raw.decode(errors="replace"), 0
    while position < len(text):
        char = text[position]
        if char == '"':
            end = position + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if depth == 1 and text[end + 1 : end + 40].lstrip().startswith(":"):
                key = text[position + 1 : end]
            position = end
        elif char in "{[":
            depth += 1
            if depth > deepest:
                deepest, found = depth, key
        elif char in "}]":
            depth -= 1
        position += 1
    return found[:64] if found else None
