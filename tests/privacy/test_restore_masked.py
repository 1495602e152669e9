"""What was masked comes back as it was, whatever stands beside it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.privacy.kinds import Kind, Span
from appliance.privacy.mask import Mask
from appliance.privacy.restore import Restorer

PIECES = st.sampled_from([
    "Klient_001", "KLIENT 001", "Ort", "Klient", "_", "0", "01", "7", "s", "'s", "’", "\\", "\\n", " ", " ", ".", "-",
    "x", "akte", "anna.berg@x.example", "AZ-7/23", "DE12", "http://x.example/", "\n",
])  # fmt: skip


@st.composite
def found(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text, and finds in it."""
    text = "".join(draw(st.lists(PIECES, min_size=1, max_size=12)))
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    kinds = st.sampled_from([Kind.REFERENCE, Kind.EMAIL, Kind.URL])
    return text, [Span(*pair, draw(kinds)) for pair in zip(ends[::2], ends[1::2], strict=False)]


@given(found())
def test_there_and_back(found: tuple[str, list[Span]]) -> None:
    text, spans = found
    mask = Mask([])
    masked = mask.apply([text], [spans])[0]
    restorer = Restorer(mask.originals)
    back = restorer.feed("0", masked) + restorer.finish("0")
    assert back.casefold() == text.casefold(), masked
