"""Labelled texts through the detectors and through the gate, in this process, and what was seen of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.config import CloudModel, Privacy, Provider, Rule
from appliance.core import DataClass
from appliance.privacy.asked import Asked
from appliance.privacy.detect.detector import Detector
from appliance.privacy.detect.patterns import patterns
from appliance.privacy.gate import Gate
from appliance.privacy.here import Here
from appliance.privacy.kinds import Span
from appliance.privacy.restore import Restorer
from appliance.privacy.verdict import Held
from benchmarks.cases import Case
from benchmarks.judging import Share, covered, overmasked, right
from benchmarks.labelled import Labelled

MEASURES = ("recall", "precision", "overmasked", "stays", "held", "leaked", "left")
"""What facts are about: labels, finds, characters, requests twice, those that were released, and labels in these."""
_SECONDS = 60.0
"""For one request, so that a busy machine doesn't hold any back."""


class Fact(NamedTuple):
    """One observation that is true or not: `hit`."""

    measure: str
    """One of `MEASURES`."""
    language: str
    slice: str
    kind: str
    """Of what was labelled or found; of `held`, the reason in question; else empty."""
    hit: int
    of: int = 1


def shares(facts: Iterable[Fact], measure: str, *by: str) -> dict[tuple[str, ...], Share]:
    """The facts of one measure counted in groups, such as by `language`, `kind`; sorted."""
    groups: dict[tuple[str, ...], Share] = {}
    for fact in facts:
        if fact.measure == measure:
            share = groups.setdefault(tuple(getattr(fact, name) for name in by), Share())
            share.hits += fact.hit
            share.of += fact.of
    return dict(sorted(groups.items()))


@dataclass(slots=True)
class Seen:
    """What came out. `missed` and `leaked` hold words of the texts, for whoever looks into them."""

    facts: list[Fact] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    kib: float = 0
    find_seconds: float = 0
    """Of processor time, all threads."""
    gate_kib: float = 0
    gate_seconds: float = 0
    """Of the whole gate, with both looks of the detectors."""


def detected(detector: Detector, texts: Sequence[Labelled], seen: Seen, progress: Callable[[int], None]) -> None:
    """What the detectors find in the texts as they are, into `seen`."""
    for number, labelled in enumerate(texts, 1):
        began = time.process_time()
        spans = detector.find(labelled.text)
        seen.find_seconds += time.process_time() - began
        seen.kib += len(labelled.text.encode()) / 1024
        seen.facts.extend(_facts(labelled, spans))
        seen.missed.extend(
            f"{labelled.id}: {label.kind}: {labelled.text[label.start : label.end]}"
            for label in labelled.labels
            if label.kind and not covered(label, labelled.text, spans)
        )
        progress(number)


def _facts(labelled: Labelled, spans: Sequence[Span]) -> Iterator[Fact]:
    language, slice_ = labelled.language, labelled.slice
    for label in labelled.labels:
        if label.kind is not None:
            yield Fact("recall", language, slice_, label.kind, covered(label, labelled.text, spans))
    for span in spans:
        judged = right(span, labelled)
        if judged is not None:
            yield Fact("precision", language, slice_, span.kind, judged)
    yield Fact("overmasked", language, slice_, "", overmasked(labelled, spans), len(labelled.text))


def pattern_seconds(texts: Sequence[Labelled]) -> tuple[float, float]:
    """Processor seconds of the patterns alone, and the KiB that they read: each text once, after a few to warm up."""
    tier = patterns()
    for labelled in texts[:20]:
        tier.find(labelled.text)
    began = time.process_time()
    for labelled in texts:
        tier.find(labelled.text)
    return time.process_time() - began, sum(len(labelled.text.encode()) for labelled in texts) / 1024


def restore_us(chunks: int = 200_000) -> float:
    """Processor time of the restorer for each chunk of an answer in which every twentieth word is a placeholder, cut
    as engines cut them: a few characters each."""
    originals = {f"Klient_{number:03d}": f"Person {chr(65 + number)}" for number in range(20)}
    words = (
        "Sehr geehrte Frau {}, vielen Dank für Ihre Nachricht vom Montag; wir prüfen sie und melden uns bald wieder."
    )
    answer = " ".join(words.format(placeholder) for placeholder in originals)
    pieces = [answer[at : at + 5] for at in range(0, len(answer), 5)]
    seconds, done = 0.0, 0
    while done < chunks:
        restorer = Restorer(originals)
        began = time.process_time()
        for piece in pieces:
            restorer.feed("", piece)
        restorer.finish("")
        seconds += time.process_time() - began
        done += len(pieces)
        if restorer.restored != len(originals):
            raise RuntimeError("the restorer left a placeholder")
    return seconds / done * 1e6


def gate(detector: Detector, privacy: Privacy | None = None) -> Gate:
    """One that lets pseudonymised requests of every class out, to a provider that fits."""
    settings = privacy or Privacy()
    rules = [
        Rule(data_class=each, may="pseudonymise", purpose="measuring", regions=["eu"], agreement="DPA 1")
        for each in DataClass
    ]
    model = CloudModel(
        model="large", context_length=128_000, prompt_euros_per_million=0, completion_euros_per_million=0
    )
    provider = Provider(url="https://api.provider.example/v1", region="eu", agreement="DPA 1", models={"chat": model})
    return Gate(
        settings.model_copy(update={"policy": rules}),
        {"provider": provider},
        Here(detector),
        Ed25519PrivateKey.generate(),
    )


async def protected(judge: Gate, cases: Sequence[Case], seen: Seen, progress: Callable[[int], None]) -> None:
    """What the gate says of the cases, into `seen`."""
    for number, case in enumerate(cases, 1):
        payload = json.dumps(case.payload).encode()
        began = time.process_time()
        verdict = await judge.protect(Asked("chat", payload, DataClass.INTERNAL, None, _SECONDS))
        seen.gate_seconds += time.process_time() - began
        seen.gate_kib += len(payload) / 1024
        judge.forget(verdict.ticket)
        if verdict.held is Held.GATE:
            raise RuntimeError(f"the gate itself failed: {verdict.why}")
        seen.facts.append(Fact("stays", case.language, case.slice, "", verdict.held is not None))
        seen.facts.extend(Fact("held", case.language, case.slice, held, verdict.held is held) for held in Held)
        if verdict.held is not None:
            seen.held.append(f"{case.id}: {verdict.held}: {verdict.why}")
        else:
            leaked = case.leaks(json.loads(verdict.payload))
            seen.facts.append(Fact("leaked", case.language, case.slice, "", bool(leaked)))
            left = Counter(kind for kind, _ in leaked)
            for kind, count in case.personal.items():
                seen.facts.append(Fact("left", case.language, case.slice, kind, left[kind], count))
            seen.leaked.extend(f"{case.id}: {kind}: {value}" for kind, value in leaked)
        progress(number)
