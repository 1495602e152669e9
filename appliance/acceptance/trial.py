"""The checks of the gate, one after the other, for one new engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from appliance.acceptance import golden, sense, speed
from appliance.acceptance.asking import Answer, Asked
from appliance.acceptance.golden import Marks
from appliance.acceptance.records import Record
from appliance.acceptance.result import Result
from appliance.acceptance.sense import Kept
from appliance.acceptance.speed import Speed
from appliance.acceptance.texts import ROUND_TRIP, tongues, version
from appliance.core import Task
from appliance.engines.command import Spec
from appliance.engines.engine import Engine, State
from appliance.engines.served import Tell
from appliance.errors import Invalid, NotAccepted, UpstreamFailed
from appliance.evaluation import sets
from appliance.evaluation.checks import Regex
from appliance.evaluation.sets import Set

_ANSWER_TOKENS = 24
_SAME_COSINE = 0.999
_ROUNDS = 3
"""How often the speed is measured, at most: one hiccup of the machine refuses nobody."""
_OLD_PATIENCE = 15.0
"""Seconds for the old one, which may be the very one that has to go because it hangs."""
_CHAT_ENDS = ("stop", "length")


class Trial:
    """One engine's. Each check raises `NotAccepted` with what was expected, what came and what to do."""

    def __init__(self, spec: Spec, models: Path, result: Result, tell: Tell) -> None:
        self.check = "smoke prompt"
        """What is looked at now."""
        self.result = result
        self._spec = spec
        self._gate = spec.card.gate
        self._task = Task(spec.card.task)
        self._models = models
        self._tell = tell
        self._tongues = tongues(spec.card.languages)
        self._tongue = next(iter(self._tongues.values()))
        self._questions = tuple(question for tongue in self._tongues.values() for question in tongue.questions)
        self._texts = tuple(text for tongue in self._tongues.values() for text in (*tongue.alike, tongue.unlike))

    @property
    def asked(self) -> str:
        """Which questions `answers` asks."""
        return version(str(_ANSWER_TOKENS), *self._questions, *self._texts)

    async def bar(self) -> str:
        """A digest of what the card and the golden sets ask for: another bar has to be passed anew."""
        golden_sets = [f"{each.name}@{each.version}" for each in await self._golden_sets()]
        return version(self._gate.model_dump_json(), *golden_sets)

    async def _golden_sets(self) -> Sequence[Set]:
        self.check = "golden set"
        try:
            return await asyncio.to_thread(sets.of_model, self._models, self._spec.settings.card, gate=True)
        except Invalid as problem:
            raise NotAccepted(str(problem)) from problem

    async def smoke(self, asked: Asked) -> None:
        """One question, as a caller would ask it."""
        self._begin("smoke prompt")
        if self._task is not Task.CHAT:
            return  # what they read is looked at next
        smoke = self._gate.smoke
        answer = await asked.chat([{"role": "user", "content": smoke.prompt}], smoke.max_tokens)
        if answer.finish not in _CHAT_ENDS:
            raise NotAccepted(f"the answer ended with {answer.finish[:40]!r} instead of {' or '.join(_CHAT_ENDS)}")
        if not answer.text.strip():
            raise NotAccepted("the answer is empty. Are the weights and the tokenizer of one model?")
        if smoke.expect is not None:
            mark = await asyncio.to_thread(Regex(kind="regex", pattern=smoke.expect).score, answer.text)
            if not mark.passed:
                raise NotAccepted(f"the answer doesn't hold what gate.smoke.expect of its card says ({mark.why})")

    async def sense(self, asked: Asked) -> tuple[dict[str, float], str]:
        """Whether it is no rubbish: nats a token by language, and what the engine calls itself."""
        self._begin("no rubbish")
        if self._task is Task.EMBEDDING:
            await self._vectors_make_sense(asked)
            return {}, ""
        if self._task is Task.RERANK:
            await self._scores_make_sense(asked)
            return {}, ""
        if not sense.same_text(ROUND_TRIP, await asked.there_and_back(ROUND_TRIP)):
            raise NotAccepted("its tokenizer doesn't give back a text that it took apart; bring the model's own")
        found: dict[str, float] = {}
        engine = ""
        for language, tongue in self._tongues.items():
            likelihood = await asked.likelihood(tongue.plain)
            nats, engine = likelihood.nats, likelihood.engine
            found[language.lower()] = self.result.figures[f"nats_{language.lower()}"] = nats
            self._require_likely(nats, f"a plain {language} text", "The weights are broken, or aren't what their")
        for name, adapter in self._spec.adapters.items():
            nats = (await asked.adapter(name).likelihood(self._tongue.plain)).nats
            what = f"a plain text, with the adapter {adapter.folder.name},"
            self._require_likely(nats, what, "The adapters are broken, or aren't what their")
        return found, engine

    def _require_likely(self, nats: float, what: str, cause: str) -> None:
        most = self._gate.nats_per_token
        if not nats <= most:  # a NaN isn't, either
            raise NotAccepted(
                f"it finds {what} as unlikely as {nats:.1f} nats a token, where about 10 is noise; gate.nats_per_token "
                f"of its card allows {most:g}. {cause} config.json says: bring them anew"
            )

    async def _vectors_make_sense(self, asked: Asked) -> None:
        for tongue in self._tongues.values():
            one, other, unlike = await asked.vectors([*tongue.alike, tongue.unlike])
            (again,) = await asked.vectors(tongue.alike[:1])
            if not all(map(sense.sound, (one, other, unlike, again))):
                raise NotAccepted("its vectors hold what is no number, or nothing but zeros: prepare the weights anew")
            if sense.cosine(one, again) < _SAME_COSINE:
                raise NotAccepted("it gives the same text two different vectors: prepare the weights anew")
            if sense.cosine(one, other) <= sense.cosine(one, unlike):
                raise NotAccepted("it finds two texts of one meaning less alike than two of different ones")

    async def _scores_make_sense(self, asked: Asked) -> None:
        for tongue in self._tongues.values():
            fits, doesnt = await asked.scores(tongue.alike[0], [tongue.alike[1], tongue.unlike])
            if not sense.sound((fits, 1.0)) or not sense.sound((doesnt, 1.0)):
                raise NotAccepted("its scores hold what is no number: prepare the weights anew")
            if fits <= doesnt:
                raise NotAccepted("it scores a text of another meaning as high as one of the same")

    async def answers(
        self, asked: Asked, before: Record | None, file: Path
    ) -> tuple[tuple[Kept, ...], tuple[tuple[float, ...], ...]]:
        """Those with a fixed seed, to be kept: the ones from `before` where these weights have passed before.

        `file` is where those are.
        """
        self._begin("answers with a fixed seed")
        if self._task is Task.RERANK:
            return (), ()
        if self._task is Task.EMBEDDING:
            vectors = tuple(await asked.vectors(self._texts))
            if before is None or len(before.vectors) != len(vectors):
                return (), vectors
            pairs = zip(before.vectors, vectors, strict=True)
            same = [len(old) == len(new) and sense.cosine(old, new) >= _SAME_COSINE for old, new in pairs]
            self._require_same(100 * sum(same) / len(same), before, file)
            return (), before.vectors
        # the likeliest answers, so that the seed decides nothing as long as sampling does what it should
        ask = ([{"role": "user", "content": question}] for question in self._questions)
        answers = await asyncio.gather(*(asked.chat(messages, _ANSWER_TOKENS) for messages in ask))
        if sense.over_and_over(answers):
            raise NotAccepted("most answers are one token over and over: prepare the weights anew")
        if sense.all_alike(answers):
            raise NotAccepted("it gives one and the same answer to different questions: prepare the weights anew")
        if before is None or len(before.answers) != len(answers):
            return tuple(Kept(answer.prompt, answer.tokens) for answer in answers), ()
        shares = await asyncio.gather(*(_agree(asked, *pair) for pair in zip(before.answers, answers, strict=True)))
        self._require_same(100 * sum(shares) / len(shares), before, file)
        return before.answers, ()

    def _require_same(self, percent: float, before: Record, file: Path) -> None:
        self.result.figures["same_percent"] = percent
        if percent < self._gate.same_percent:
            raise NotAccepted(
                f"{percent:.0f} % of the answers are as on {before.first_passed}, when these weights passed first on "
                f"{before.engine or 'this engine'}; gate.same_percent of its card asks for "
                f"{self._gate.same_percent:g}. Something computes otherwise than then: the engine, a driver, a "
                f"setting. If that is meant to be, remove {file} and apply again"
            )

    async def golden(self, asked: Asked, before: Record | None, lost: Path | None = None) -> dict[str, Marks]:
        """The golden sets marked `gate: true`, held against `before`, which is missing or can't be read at `lost`."""
        self._begin("golden set")
        chosen, least = await self._golden_sets(), self._gate.golden_percent
        if not chosen and least is not None:
            raise NotAccepted(
                f"gate.golden_percent of its card asks for {least:g}, but no golden set has `gate: true`: mark one, or "
                "take that line out of the card"
            )
        if not chosen or self._task is not Task.CHAT:
            return {}
        if lost is not None and await asyncio.to_thread(lost.exists):
            raise NotAccepted(
                f"{lost} can't be read, which holds what the model before it passed, so the two can't be compared: "
                "restore it from a backup, or remove it, and apply again"
            )
        marks, failed = await golden.run(asked, chosen)
        came = golden.total(marks)
        self.result.figures["golden_percent"] = came.percent
        self._tell(f"golden set: {came.passed} of {came.cases} cases passed")
        if least is not None and came.percent < least:
            raise NotAccepted(
                f"{came.percent:.0f} % of the cases passed; gate.golden_percent of its card asks for {least:g}. "
                f"Not passed: {_some(failed)}"
            )
        fewer = golden.fewer(marks, before.golden) if before is not None else None
        if fewer is not None and fewer > self._gate.golden_less:
            raise NotAccepted(
                f"{fewer:.0f} percentage points fewer of the cases passed than with {before.card if before else ''}; "
                f"gate.golden_less of its card allows {self._gate.golden_less:g}. Not passed: {_some(failed)}"
            )
        return marks

    async def speed(self, asked: Asked, old: Engine | None, before: Record | None) -> Speed:
        """How fast it is, beside the old one as it is now, or as it was when it passed."""
        self._begin("speed")
        best: Speed | None = None
        slower = 1.0
        for _ in range(_ROUNDS):
            # the old one first: what holds the machine up then is likely to hold it up for the new one, too
            reference = await self._old(old, before)
            found = await speed.measure(asked, self._task, self._tongue, busy=False)
            best = found if best is None else found.best(best)
            slower = speed.times_slower(best, reference) if reference is not None else 1.0
            if slower <= self._gate.slower_times:
                break
        assert best is not None  # noqa: S101 - there is one round at least
        unit = "tokens" if self._task is Task.CHAT else "texts"
        rate = 1 / max(best.one, 1e-6)
        self.result.figures |= {f"{unit}_per_second": rate, "first_token_seconds": best.first}
        if reference is not None:
            self.result.figures["times_slower"] = slower
        if slower > self._gate.slower_times:
            raise NotAccepted(
                f"it takes {slower:.1f} times as long as {old.spec.settings.card if old else 'the old one'} for its "
                f"{unit} ({rate:.0f} a second); gate.slower_times of its card allows "
                f"{self._gate.slower_times:g}. Raise that if the model is worth it"
            )
        return best

    def no_worse(self, known: Record, before: Record) -> bool:
        """Whether it passes beside the old one by what is on record of both."""
        slower = speed.times_slower(known.speed, before.speed)
        fewer = golden.fewer(known.golden, before.golden) or 0.0
        if slower > self._gate.slower_times or fewer > self._gate.golden_less:
            return False
        self.result.figures["times_slower"] = slower
        self._tell(f"these weights passed on {known.last_passed}, and compute what they did then")
        return True

    async def _old(self, old: Engine | None, before: Record | None) -> Speed | None:
        if old is None or Task(old.spec.card.task) is not self._task:
            return None
        if old.state is State.READY:
            with contextlib.suppress(UpstreamFailed, NotAccepted, TimeoutError), old.lease() as upstream:
                asked = Asked(upstream, old.spec.name)
                async with asyncio.timeout(_OLD_PATIENCE):
                    return await speed.measure(asked, self._task, self._tongue, busy=old.leases > 1)
        return before.speed if before is not None else None

    def _begin(self, check: str) -> None:
        self.check = check
        self._tell(f"gate: {check}")


async def _agree(asked: Asked, before: Kept, now: Answer) -> float:
    """How much of an answer is as before, 0 to 1: of two that differ, what the engine still finds likeliest.

    Both are read to it: the old one tells whether it would say that still, the new one whether what it computes a
    token at a time is what it computes of the whole.
    """
    if before == Kept(now.prompt, now.tokens):
        return 1.0
    if before.prompt != now.prompt:
        return 0.0  # another template or another tokenizer
    shares = []
    for each in (before, Kept(now.prompt, now.tokens)):
        found = await asked.likelihood((*each.prompt, *each.tokens))
        shares.append(sense.likeliest(found, each))
    return min(shares)


def _some(failed: list[str]) -> str:
    return "; ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
