"""The detectors in this very process: for commands, measurements and tests, where nothing is to leave."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.privacy.kinds import Span
from appliance.privacy.worker import Detects


class Here:
    """A detector as the gate asks for it: see `Detect`."""

    def __init__(self, detector: Detects) -> None:
        self._detector = detector

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> list[list[Span]]:
        """As `Detect` says."""
        return [self._detector.find(text, strict=strict) for text in texts]

    async def language(self, texts: Sequence[str]) -> list[str]:
        """As `Detect` says."""
        return [self._detector.language(text) for text in texts]

    async def known(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """As `Detect` says."""
        return [list(self._detector.known(text)) for text in texts]
