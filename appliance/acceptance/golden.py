"""The golden sets for the gate, run by the gateway itself: it is sealed and can't start the evaluation's programs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.acceptance.asking import Asked
from appliance.errors import NotAccepted
from appliance.evaluation.checks import score
from appliance.evaluation.sets import Case, Set

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Marks:
    """How many of the cases of a set passed. Of another version of the set, they are another's."""

    passed: int
    cases: int

    @property
    def percent(self) -> float:
        """Of its cases."""
        return 100 * self.passed / self.cases


def total(marks: Mapping[str, Marks]) -> Marks:
    """Of several sets together."""
    return Marks(sum(each.passed for each in marks.values()), sum(each.cases for each in marks.values()))


def percents(new: Mapping[str, Marks], old: Mapping[str, Marks]) -> tuple[float, float] | None:
    """What part passed now and before, of the sets that both were asked; None: there are none."""
    both = new.keys() & old.keys()
    if not both:
        return None
    now, before = (total({name: marks[name] for name in both}) for marks in (new, old))
    return now.percent, before.percent


def fewer(new: Mapping[str, Marks], old: Mapping[str, Marks]) -> float | None:
    """Percentage points by which less passed than before, in the sets that both were asked; None: there are none."""
    found = percents(new, old)
    return None if found is None else found[1] - found[0]


async def run(asked: Asked, sets: Sequence[Set]) -> tuple[dict[str, Marks], list[str]]:
    """Marks by `name@version` of each set, and which cases failed, as `set/case: why`."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def passes(case: Case) -> str | None:
        async with places:
            try:
                answer = await asked.chat(case.messages, case.max_tokens, case.seed)
            except NotAccepted as refusal:  # such as a case that is longer than the model's context
                return f"{case.id}: {refusal}"
        for check in case.checks:
            # in a thread: a pattern may take its quarter of a second, in which everybody else would stand still
            mark = await asyncio.to_thread(score, check, answer.text)
            if not mark.passed:
                return f"{case.id}: {mark.why}"
        return None

    marks: dict[str, Marks] = {}
    failed: list[str] = []
    for each in sets:
        whys = await asyncio.gather(*map(passes, each.cases))
        missed = [why for why in whys if why is not None]
        marks[f"{each.name}@{each.version[:12]}"] = Marks(len(whys) - len(missed), len(whys))
        failed += [f"{each.name}/{why}" for why in missed]
    return marks, failed
