"""OpenAI's responses, without what a provider would store or run itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from appliance.api.bodies.base import (
    ACCOUNT,
    CACHE,
    Body,
    Bound,
    Effort,
    FunctionName,
    Items,
    Json,
    NonEmpty,
    Part,
    Seed,
    Share,
    Temperature,
    Text,
    Tokens,
    ignored,
    only_data_url,
)
from appliance.api.bodies.chat import JsonSchema, PlainFormat


class InputText(Part):
    """Text of the person or the app."""

    type: Literal["input_text"]
    text: Text
    prompt_cache_breakpoint: Any = ignored(CACHE)


class OutputText(Part):
    """Text that the model wrote before."""

    type: Literal["output_text"]
    text: Text
    annotations: Any = ignored("Part of an answer that SDKs send back; says nothing to a model.")
    logprobs: Any = ignored("Part of an answer that SDKs send back; says nothing to a model.")


class OutputRefusal(Part):
    """An earlier refusal of the model."""

    type: Literal["refusal"]
    refusal: Text


class InputImage(Part):
    """An image as a `data:` URL."""

    type: Literal["input_image"]
    image_url: Text
    detail: Literal["auto", "low", "high", "original"] | None = None

    _data_only = field_validator("image_url")(only_data_url)


InputPart = Annotated[InputText | OutputText | OutputRefusal | InputImage, Field(discriminator="type")]


class InputMessage(Part):
    """A message of the conversation; `type` may be left out."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[Items[InputPart], Field(min_length=1)]
    type: Literal["message"] | None = None
    id: NonEmpty | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Any = ignored("Part of an answer that SDKs send back; says nothing to a model.")


class FunctionCallItem(Part):
    """A function that the model called."""

    type: Literal["function_call"]
    call_id: NonEmpty
    name: FunctionName
    arguments: Text
    id: NonEmpty | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class FunctionCallOutputItem(Part):
    """What the function answered."""

    type: Literal["function_call_output"]
    call_id: NonEmpty
    output: Text
    id: NonEmpty | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class ReasoningText(Part):
    """Reasoning that the model wrote before."""

    type: Literal["reasoning_text", "summary_text"]
    text: Text


class ReasoningItem(Part):
    """A step of reasoning that the model sent before."""

    type: Literal["reasoning"]
    id: NonEmpty
    summary: Items[ReasoningText]
    content: Items[ReasoningText] | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    encrypted_content: Any = ignored("Reasoning is not encrypted here.")


InputItem = InputMessage | FunctionCallItem | FunctionCallOutputItem | ReasoningItem


class ResponsesTool(Part):
    """A function that the model may call. Tools that a provider would run itself are refused."""

    type: Literal["function"]
    name: FunctionName
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None
    defer_loading: Any = ignored("All tools are shown at once.")


class NamedResponsesTool(Part):
    """The one function that must be called."""

    type: Literal["function"]
    name: FunctionName


class ResponsesSchemaFormat(JsonSchema):
    """JSON of a given shape."""

    type: Literal["json_schema"]


class TextOptions(Part):
    """The form of the answer's text."""

    format: Annotated[PlainFormat | ResponsesSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Any = ignored("No open-weight model here knows it.")


class Reasoning(Part):
    """How much the model may think."""

    effort: Effort | None = None
    summary: Any = ignored("Reasoning is not summarised here.")
    generate_summary: Any = ignored("Reasoning is not summarised here.")
    context: Any = ignored("Nothing is stored.")
    mode: Any = ignored("No open-weight model here knows it.")


class Responses(Body):
    """POST /v1/responses. Stateless: the whole conversation comes with each request."""

    input: Annotated[Text, Field(min_length=1)] | Annotated[Items[InputItem], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Tokens | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    text: TextOptions | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedResponsesTool | None = None
    tools: Items[ResponsesTool] | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    top_p: Share | None = None
    include: Items[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(
        default=None, description="vLLM's own: sample from the k likeliest."
    )
    seed: Seed | None = Field(default=None, description="vLLM's own.")
    store: bool | None = Field(default=None, description="Set to false: nothing is stored.")
    background: Literal[False] | None = Field(default=None, exclude=True, description="Only false is served.")
    previous_response_id: None = Field(
        default=None,
        exclude=True,
        description="Nothing is stored, so nothing can be continued: send the whole conversation.",
    )
    conversation: None = Field(
        default=None,
        exclude=True,
        description="Nothing is stored, so nothing can be continued: send the whole conversation.",
    )
    prompt: None = Field(default=None, exclude=True, description="Templates stored at a provider can't be used.")
    truncation: Literal["disabled"] | None = Field(default=None, exclude=True, description="Only `disabled` is served.")
    access_programs: Any = ignored(ACCOUNT)
    background_options: Any = ignored("Answers are never made in the background.")
    context_management: Any = ignored("The whole conversation comes with each request.")
    image: Any = ignored("Images are not made here.")
    max_tool_calls: Any = ignored("Tools are run by the app, not by the appliance.")
    metadata: Any = ignored(ACCOUNT)
    moderation: Any = ignored(ACCOUNT)
    prompt_cache_key: Any = ignored(CACHE)
    prompt_cache_options: Any = ignored(CACHE)
    prompt_cache_retention: Any = ignored(CACHE)
    safety_identifier: Any = ignored(ACCOUNT)
    service_tier: Any = ignored("Priority is set by key, never by the body.")
    stream_options: Any = ignored("Usage always comes with the last event.")
    user: Any = ignored(ACCOUNT)

    def check(self, bound: Bound) -> None:
        """Hold input, tools and formats to the limits."""
        limits = bound.limits
        bound.output_tokens("max_output_tokens", self.max_output_tokens)
        bound.most("top_logprobs", self.top_logprobs, limits.logprobs)
        if isinstance(self.input, list):
            bound.most("input", len(self.input), limits.messages)
        if self.tools is not None:
            bound.most("tools", len(self.tools), limits.tools)
            for index, tool in enumerate(self.tools):
                bound.json(f"tools[{index}].parameters", tool.parameters)
        if self.text is not None and isinstance(self.text.format, ResponsesSchemaFormat):
            bound.json("text.format.schema", self.text.format.schema_)

    def prepare(self, output_tokens: int | None) -> None:
        """The engine keeps no conversation; a call that must be made is bound to the tool's schema, as in chat."""
        self.store = False
        if self.tools is not None and self.tool_choice not in (None, "none", "auto"):
            for tool in self.tools:
                tool.strict = tool.strict is not False
        if self.max_output_tokens is None and output_tokens is not None:
            self.max_output_tokens = output_tokens
