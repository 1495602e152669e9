"""Whether final bytes say what was masked, and nothing that came in after."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from appliance.privacy.documents import is_document, is_json, leaves

_LARGEST_LIMIT = 1_000_000
"""Numbers up to it may be put in: how many tokens an answer may have."""
_WORDS = """
model messages role answer content type text name id tools tool_choice tool_calls tool_call_id function description
parameters arguments strict system developer user assistant tool auto none any required refusal response_format
json_schema json_object schema stop stop_sequences stream stream_options include_usage max_tokens
max_completion_tokens temperature top_p top_k n seed frequency_penalty presence_penalty logprobs top_logprobs
parallel_tool_calls disable_parallel_tool_use reasoning_effort input input_schema tool_use tool_use_id tool_result
is_error thinking enabled disabled adaptive budget_tokens output_config effort format custom store minimal low medium
high xhigh max object properties metadata service_tier additionalProperties
"""
PROTOCOL = frozenset(_WORDS.split())
"""Words of the providers' own bodies."""


class Said:
    """All that a masked payload says."""

    def __init__(self, payload: bytes) -> None:
        self._strings: set[str] = set()
        self._numbers: set[float] = set()
        for text, number in _said(payload.decode()):
            if number:
                self._numbers.add(float(text))
            else:
                self._strings.add(text)
        self._lines = {line.strip() for text in self._strings for line in text.splitlines()}

    def anything_new(self, body: bytes, models: Collection[str]) -> str | None:
        """What kind of thing `body` says beyond that; None: it says nothing else.

        Strings may be put together from lines, cut between them, and be JSON in text form or not.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return "it is not UTF-8"
        if not is_json(text):
            return "it is not JSON"
        for said, number in _said(text):
            if number:
                if float(said) not in self._numbers and abs(float(said)) > _LARGEST_LIMIT:
                    return "a number"
            elif not (said in self._strings or said in PROTOCOL or said in models or self._is_of_lines(said)):
                return "a text"
        return None

    def _is_of_lines(self, text: str) -> bool:
        return all(not line.strip() or line.strip() in self._lines for line in text.splitlines())


def _said(text: str) -> Iterator[tuple[str, bool]]:
    """Strings and numbers of a JSON text, and those of JSON inside its strings; True: a number."""
    for leaf in leaves(text):
        if leaf.form == "string" and is_document(leaf.text):
            yield from _said(leaf.text)
        else:
            yield leaf.text, leaf.form == "number"
