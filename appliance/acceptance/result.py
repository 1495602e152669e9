"""What came of one trial at the gate, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Result:
    """Of one engine. It holds no word of any question or answer."""

    version: str
    """Card and weights, such as `smollm2-135m-int8@1a2b3c4d`."""
    when: str
    """ISO 8601, UTC."""
    passed: bool = False
    failed: str | None = None
    """The check that it failed, and why."""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    """`nats_english`, `same_percent`, `golden_percent`, `tokens_per_second`, `times_slower` and others: what was
    looked at."""

    def on_record(self) -> dict[str, object]:
        """For the audit log, which takes no fractions."""
        return {name: f"{value:g}" if isinstance(value, float) else value for name, value in self.describe().items()}

    def describe(self) -> dict[str, object]:
        """For the status."""
        return {
            "version": self.version, "when": self.when, "passed": self.passed, "failed": self.failed,
            "seconds": round(self.seconds, 1), **{name: round(value, 3) for name, value in self.figures.items()},
        }  # fmt: skip
