"""Bodies of Anthropic's operations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from appliance.api.bodies.base import (
    ACCOUNT,
    CACHE,
    Body,
    Bound,
    FunctionName,
    Items,
    Json,
    NonEmpty,
    Part,
    Text,
    ignored,
)


class TextBlock(Part):
    """Text."""

    type: Literal["text"]
    text: Text
    cache_control: Any = ignored(CACHE)
    citations: Any = ignored("Citations are not made here.")


class Base64Source(Part):
    """An image inside the request; the appliance fetches none from a URL."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Text


class ImageBlock(Part):
    """An image."""

    type: Literal["image"]
    source: Base64Source
    cache_control: Any = ignored(CACHE)
    transformations: Any = ignored("Images are taken as they are.")


class ToolUseBlock(Part):
    """A tool that the model called."""

    type: Literal["tool_use"]
    id: NonEmpty
    name: FunctionName
    input: Json
    cache_control: Any = ignored(CACHE)
    caller: Any = ignored("Tools are run by the app, not by the appliance.")
    toolset_name: Any = ignored("Tools are run by the app, not by the appliance.")


class ToolResultBlock(Part):
    """What the tool answered."""

    type: Literal["tool_result"]
    tool_use_id: NonEmpty
    content: Text | Items[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]] | None = None
    is_error: bool | None = None
    cache_control: Any = ignored(CACHE)
    toolset_name: Any = ignored("Tools are run by the app, not by the appliance.")


class ThinkingBlock(Part):
    """What the model thought before."""

    type: Literal["thinking"]
    thinking: Text
    signature: Text


class RedactedThinkingBlock(Part):
    """Thinking that a provider hid."""

    type: Literal["redacted_thinking"]
    data: Text


Block = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock,
    Field(discriminator="type"),
]


class Turn(Part):
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[Text, Field(min_length=1)] | Annotated[Items[Block], Field(min_length=1)]


class AnthropicTool(Part):
    """A tool that the model may call. Tools that a provider would run itself are refused."""

    name: FunctionName
    input_schema: Json
    description: Text | None = None
    type: Literal["custom"] | None = Field(default=None, exclude=True, description="Only tools of the app's own.")
    strict: bool | None = None
    cache_control: Any = ignored(CACHE)
    allowed_callers: Any = ignored("Tools are run by the app, not by the appliance.")
    defer_loading: Any = ignored("All tools are shown at once.")
    eager_input_streaming: Any = ignored("Arguments are streamed as they come.")
    input_examples: Any = ignored("The engine has no place for them.")


class ToolChoice(Part):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Part):
    """JSON of a given shape."""

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Part):
    """The form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None
    task_budget: Any = ignored("No open-weight model here knows it.")


class Thinking(Part):
    """Whether the model may think first."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1024)] | None = None
    display: Any = ignored("Thinking is always shown.")


class CountTokens(Body):
    """POST /v1/messages/count_tokens."""

    takes_priority = False  # the engine hears it in a header here, see `Upstream.post`

    messages: Annotated[Items[Turn], Field(min_length=1)]
    system: Text | Items[TextBlock] | None = None
    tools: Items[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = ignored(CACHE)
    context_management: Any = ignored("The whole conversation comes with each request.")
    speed: Any = ignored("Priority is set by key, never by the body.")
    user_profile_id: Any = ignored(ACCOUNT)
    workspace_id: Any = ignored(ACCOUNT)

    def check(self, bound: Bound) -> None:
        """Hold messages, tools and formats to the limits."""
        limits = bound.limits
        bound.most("messages", len(self.messages), limits.messages)
        for index, turn in enumerate(self.messages):
            if isinstance(turn.content, list):
                for position, block in enumerate(turn.content):
                    if isinstance(block, ToolUseBlock):
                        bound.json(f"messages[{index}].content[{position}].input", block.input, schema=False)
        if self.tools is not None:
            bound.most("tools", len(self.tools), limits.tools)
            for index, tool in enumerate(self.tools):
                bound.json(f"tools[{index}].input_schema", tool.input_schema)
        if self.output_config is not None and self.output_config.format is not None:
            bound.json("output_config.format.schema", self.output_config.format.schema_)

    def most_tokens(self, payload: bytes, context_length: int | None) -> tuple[int, int]:
        """Nothing is computed: tokens are only counted."""
        return 0, 0


class Messages(CountTokens):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: Items[Annotated[Text, Field(min_length=1, max_length=1024)]] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    container: Any = ignored("Code is not run here.")
    diagnostics: Any = ignored(ACCOUNT)
    inference_geo: Any = ignored("Everything runs in this house.")
    metadata: Any = ignored(ACCOUNT)
    service_tier: Any = ignored("Priority is set by key, never by the body.")

    def check(self, bound: Bound) -> None:
        """As for counting, and the sampling fields too."""
        super().check(bound)
        bound.output_tokens("max_tokens", self.max_tokens)
        bound.most("stop_sequences", len(self.stop_sequences or ()), bound.limits.stop_sequences)

    def most_tokens(self, payload: bytes, context_length: int | None) -> tuple[int, int]:
        """As for every body that is answered."""
        return Body.most_tokens(self, payload, context_length)

    def prepare(self, output_tokens: int | None) -> None:
        """Bind the arguments of a call that must be made to the tool's schema: else vLLM takes any JSON for them."""
        if self.tools is not None and self.tool_choice is not None and self.tool_choice.type in ("any", "tool"):
            for tool in self.tools:
                tool.strict = tool.strict is not False
