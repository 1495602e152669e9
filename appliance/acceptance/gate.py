"""Decides whether a new engine may take over: a few questions to it alone, before any caller can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from appliance.acceptance import golden
from appliance.acceptance.asking import Asked
from appliance.acceptance.records import Record, Records
from appliance.acceptance.result import Result
from appliance.acceptance.sense import same
from appliance.acceptance.trial import Trial
from appliance.config import Config
from appliance.engines.command import Spec
from appliance.engines.engine import Engine, State
from appliance.engines.served import Tell
from appliance.errors import NotAccepted, UpstreamFailed

_DYING = 5.0
"""Seconds in which an engine that broke off an answer is seen to have died, and of what."""


class Acceptance:
    """The gate of one appliance."""

    def __init__(self, config: Config) -> None:
        self._models = config.models_folder
        self._records = Records(config.state)
        self._log = logging.getLogger("appliance.acceptance")
        self.results: dict[str, Result] = {}
        """What came of the last trial, by the engine's name."""

    async def accept(self, new: Engine, old: Engine | None, tell: Tell) -> None:
        """Return if `new` may take over from `old`, which may rest by then; None: from nobody.

        Asks `new.upstream`, and for speed `old` as well while it is ready: one short answer if it has callers.
        Raises `NotAccepted` with what was expected, what came and what to do.
        """
        spec = new.spec
        began = time.monotonic()
        result = Result(spec.version, _now())
        trial = Trial(spec, self._models, result, lambda line: tell(f"{spec.name}: {line}"))
        try:
            async with asyncio.timeout(spec.card.gate.seconds):
                await self._try(new, old, trial)
        except TimeoutError:
            what = f"it wasn't through within gate.seconds ({spec.card.gate.seconds:g} s) of its card"
            raise self._refused(new, result, trial.check, what) from None
        except NotAccepted as refusal:
            raise self._refused(new, result, trial.check, str(refusal)) from refusal
        except UpstreamFailed as failure:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DYING):
                    await (new.until_failed() if new.state is State.READY else _ended(new))
            raise self._refused(new, result, trial.check, new.reason or str(failure)) from failure
        finally:
            result.seconds = time.monotonic() - began
            self.results[spec.name] = result
        result.passed = True
        self._log.info("%s: %s passed its gate in %.1f s: %s", spec.name, spec.version, result.seconds, result.figures)
        tell(f"{spec.name}: {spec.settings.card} passed its gate in {result.seconds:.0f} s")

    def since(self, before: Mapping[str, Result]) -> dict[str, dict[str, object]]:
        """For the audit log: what came of trials since `results` was as `before`."""
        return {name: each.on_record() for name, each in self.results.items() if each is not before.get(name)}

    def scored(self, new: Spec, old: Spec) -> tuple[float, float] | None:
        """Percent of the golden cases that each of the two passed, of those that both were asked; None: of none."""
        marks = [record.golden for spec in (new, old) if (record := self._records.find(spec)) is not None]
        return golden.percents(*marks) if len(marks) == 2 else None

    def describe(self) -> dict[str, dict[str, object]]:
        """For the status: what came of each model's last trial."""
        return {name: result.describe() for name, result in self.results.items()}

    async def _try(self, new: Engine, old: Engine | None, trial: Trial) -> None:
        spec = new.spec
        if new.upstream is None:
            raise NotAccepted(new.reason or "the engine has ended")
        asked = Asked(new.upstream, spec.name)
        record = await asyncio.to_thread(self._records.find, spec)
        await trial.smoke(asked)
        nats, engine = await trial.sense(asked)
        bar = await trial.bar()
        before = await asyncio.to_thread(self._records.find, old.spec) if old is not None else None
        # an engine that doesn't say which it is may be another than then
        if engine and record is not None and (record.engine, record.bar) == (engine, bar) and same(nats, record.nats):
            # These very weights on this very engine have passed, and compute what they did then: where people wait, as
            # at a start or when the old one had to make room, they needn't wait for the rest again.
            if old is None:
                return
            if old.state is not State.READY and before is not None and trial.no_worse(record, before):
                return
        kept = record if record is not None and record.asked == trial.asked else None
        answers, vectors = await trial.answers(asked, kept, self._records.file(spec))
        lost = self._records.file(old.spec) if old is not None and before is None else None
        golden = await trial.golden(asked, before, lost)
        speed = await trial.speed(asked, old, before)
        passed = Record(
            card=spec.settings.card,
            weights=spec.fingerprint,
            engine=engine,
            first_passed=kept.first_passed if kept is not None else trial.result.when,
            last_passed=trial.result.when,
            asked=trial.asked,
            bar=bar,
            speed=speed if kept is None else speed.best(kept.speed),
            nats=nats,
            answers=answers,
            vectors=vectors,
            golden=golden,
        )
        try:
            await asyncio.to_thread(self._records.keep, spec, passed)
        except OSError as cause:
            raise NotAccepted(f"what was found can't be kept: {cause}; make room, and apply again") from cause

    def _refused(self, new: Engine, result: Result, check: str, why: str) -> NotAccepted:
        result.failed = f"{check}: {why}"
        self._log.error("%s: %s did not pass its gate: %s", new.spec.name, new.spec.version, result.failed)
        return NotAccepted(f"{new.spec.name}: {new.spec.settings.card} did not pass its gate ({check}): {why}")


async def _ended(new: Engine) -> None:
    """Wait until the process of an engine that isn't ready yet has ended; its owner task tells of what."""
    if new.process is not None:
        await new.process.wait()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
