"""Chat and plain completions, in OpenAI's form."""

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
    Penalty,
    Seed,
    Share,
    Stop,
    Temperature,
    Text,
    TokenIds,
    Tokens,
    ignored,
    only_data_url,
    refuse,
)


class TextPart(Part):
    """Text inside a message."""

    type: Literal["text"]
    text: Text
    prompt_cache_breakpoint: Any = ignored(CACHE)


class RefusalPart(Part):
    """An earlier refusal of the model."""

    type: Literal["refusal"]
    refusal: Text


class ImageUrl(Part):
    """An image as a `data:` URL."""

    url: Text
    detail: Literal["auto", "low", "high", "original"] | None = None

    _data_only = field_validator("url")(only_data_url)


class ImagePart(Part):
    """An image inside a message."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Any = ignored(CACHE)


class InputAudio(Part):
    """Audio as base64."""

    data: Text
    format: Literal["wav", "mp3"]


class AudioPart(Part):
    """Audio inside a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    prompt_cache_breakpoint: Any = ignored(CACHE)


ContentPart = Annotated[TextPart | RefusalPart | ImagePart | AudioPart, Field(discriminator="type")]
Content = Text | Annotated[Items[ContentPart], Field(min_length=1)]


class FunctionCall(Part):
    """A function that the model called, with its arguments as JSON text."""

    name: FunctionName
    arguments: Text


class ToolCall(Part):
    """A call of a tool by the model."""

    id: NonEmpty
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(Part):
    """Instructions of the app."""

    role: Literal["system", "developer"]
    content: Content
    name: NonEmpty | None = None


class UserMessage(Part):
    """What the person said."""

    role: Literal["user"]
    content: Content
    name: NonEmpty | None = None


class AssistantMessage(Part):
    """What the model said before."""

    role: Literal["assistant"]
    content: Content | None = None
    name: NonEmpty | None = None
    refusal: Text | None = None
    tool_calls: Items[ToolCall] | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    audio: Any = ignored("Audio answers are not served.")
    function_call: Any = ignored("Deprecated; use `tool_calls`.")
    annotations: Any = ignored("Part of an answer that SDKs send back; says nothing to a model.")


class ToolMessage(Part):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: NonEmpty
    name: NonEmpty | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(Part):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Part):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Part):
    """The function's name."""

    name: FunctionName


class NamedTool(Part):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Part):
    """The shape that the answer must have."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Text | None = None
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool | None = None


class PlainFormat(Part):
    """Free text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Part):
    """JSON of a given shape."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Part):
    """vLLM's own way to bind the answer: to a JSON schema, a regular expression or a choice."""

    json_: Json | None = Field(default=None, alias="json")
    regex: Text | None = None
    choice: Annotated[Items[Text], Field(min_length=1, max_length=256)] | None = None


class StreamOptions(Part):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = ignored("Padding against observers of encrypted traffic; TLS ends in the house.")


class TemplateArguments(Part):
    """The switches of a chat template that a caller may set."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class Sampling(Body):
    """Fields that chat and plain completions share."""

    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^\d{1,7}$")], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024),
        ]
        | None
    ) = None
    max_tokens: Tokens | None = None
    n: Tokens | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(
        default=None, description="vLLM's own: sample from the k likeliest."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="vLLM's own: least share of the likeliest."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = Field(default=None, description="vLLM's own.")
    min_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="vLLM's own: generate at least so many."
    )
    ignore_eos: bool | None = Field(default=None, description="vLLM's own, for benchmarks: go on to `max_tokens`.")
    structured_outputs: StructuredOutputs | None = Field(default=None, description="vLLM's own: bind the answer.")
    user: Any = ignored(ACCOUNT)

    def check(self, bound: Bound) -> None:
        """Hold the sampling fields to the limits."""
        limits = bound.limits
        bound.most("n", self.n, limits.choices)
        bound.output_tokens("max_tokens", self.max_tokens)
        bound.output_tokens("min_tokens", self.min_tokens)
        if isinstance(self.stop, list):
            bound.most("stop", len(self.stop), limits.stop_sequences)
        if self.stream_options is not None and not self.stream:
            refuse("stream_options", "stream_options goes only with stream: true")
        if self.structured_outputs is not None:
            bound.json("structured_outputs.json", self.structured_outputs.json_)
            pattern = self.structured_outputs.regex
            bound.most("structured_outputs.regex", len(pattern or ""), limits.pattern_length)
            for index, choice in enumerate(self.structured_outputs.choice or ()):
                bound.most(f"structured_outputs.choice[{index}]", len(choice), limits.pattern_length)

    def wants_usage(self) -> bool:
        """Whether the caller asked for usage in the stream."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def wanted_choices(self) -> int:
        """`n`, or one."""
        return self.n or 1

    def prepare(self, output_tokens: int | None) -> None:
        """Ask for usage in every stream: it is what a request is settled by."""
        if self.stream:
            self.stream_options = StreamOptions(include_usage=True)
        if self.max_tokens is None and output_tokens is not None:
            self.max_tokens = output_tokens


class ChatCompletions(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[Items[Message], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    max_completion_tokens: Tokens | None = None
    response_format: ResponseFormat | None = None
    tools: Items[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateArguments | None = Field(default=None, description="vLLM's own: `enable_thinking`.")
    modalities: Items[Literal["text"]] | None = Field(default=None, exclude=True, description="Only `text` is served.")
    audio: Any = ignored("Audio answers are not served.")
    function_call: Any = ignored("Deprecated; use `tool_choice`.")
    functions: Any = ignored("Deprecated; use `tools`.")
    metadata: Any = ignored(ACCOUNT)
    moderation: Any = ignored(ACCOUNT)
    prediction: Any = ignored("A hint for speed that the engine has no use for.")
    prompt_cache_key: Any = ignored(CACHE)
    prompt_cache_options: Any = ignored(CACHE)
    prompt_cache_retention: Any = ignored(CACHE)
    safety_identifier: Any = ignored(ACCOUNT)
    service_tier: Any = ignored("Priority is set by key, never by the body.")
    store: Any = ignored("Nothing is stored.")
    verbosity: Any = ignored("No open-weight model here knows it.")
    web_search_options: Any = ignored("Nothing is fetched from the network.")

    def check(self, bound: Bound) -> None:
        """Hold messages, tools and formats to the limits."""
        super().check(bound)
        limits = bound.limits
        bound.most("messages", len(self.messages), limits.messages)
        bound.most("top_logprobs", self.top_logprobs, limits.logprobs)
        bound.output_tokens("max_completion_tokens", self.max_completion_tokens)
        if self.top_logprobs and not self.logprobs:
            refuse("top_logprobs", "top_logprobs goes only with logprobs: true")
        if self.response_format is not None and isinstance(self.response_format, SchemaFormat):
            bound.json("response_format.json_schema.schema", self.response_format.json_schema.schema_)
        if self.tools is not None:
            bound.most("tools", len(self.tools), limits.tools)
            for index, tool in enumerate(self.tools):
                bound.json(f"tools[{index}].function.parameters", tool.function.parameters)
        if self.tool_choice is not None and self.tool_choice != "none" and not self.tools:
            refuse("tool_choice", "tool_choice needs tools to choose from")

    def prepare(self, output_tokens: int | None) -> None:
        """As for all, but `max_completion_tokens` is a limit of the caller's too."""
        super().prepare(None if self.max_completion_tokens else output_tokens)
        if self.tools is not None and self.tool_choice not in (None, "none", "auto"):
            for tool in self.tools:  # bound to its schema: else vLLM takes any JSON for arguments, a string even
                tool.function.strict = tool.function.strict is not False


class Completions(Sampling):
    """POST /v1/completions."""

    prompt: (
        Annotated[Text, Field(min_length=1)]
        | Annotated[Items[Annotated[Text, Field(min_length=1)]], Field(min_length=1)]
        | TokenIds
        | Annotated[Items[TokenIds], Field(min_length=1)]
    )
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, exclude=True, description="Only 1 is served."
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0)] | None = None
    response_format: ResponseFormat | None = None
    suffix: Annotated[Text, Field(max_length=0)] | None = Field(
        default=None, exclude=True, description="Only empty is served."
    )

    def prompts(self) -> int:
        """How many prompts there are."""
        many = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return len(self.prompt) if many else 1

    def check(self, bound: Bound) -> None:
        """Hold prompts and logprobs to the limits."""
        super().check(bound)
        bound.most("logprobs", self.logprobs, bound.limits.logprobs)
        bound.most("prompt", self.prompts(), bound.limits.choices)
        bound.most("n", self.wanted_choices(), bound.limits.choices)  # each prompt is answered n times
        bound.token_ids("prompt", self.prompt)
        if self.response_format is not None and isinstance(self.response_format, SchemaFormat):
            bound.json("response_format.json_schema.schema", self.response_format.json_schema.schema_)

    def wanted_choices(self) -> int:
        """`n` for each prompt."""
        return (self.n or 1) * self.prompts()
