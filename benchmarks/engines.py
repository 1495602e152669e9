"""What the seal costs the real engine: one sealed and one not, asked alternately over their Unix sockets."""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.config import Config, LocalModel
from appliance.engines import nursery, specs
from appliance.engines.command import Spec, launch
from appliance.engines.specs import Machine
from benchmarks import load, processes, unsealed
from benchmarks.pairs import Ratio, in_turn
from benchmarks.terminal import say
from benchmarks.throughput import story

START_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Output tokens per second of one engine with the seal and one without, in pairs (sealed, unsealed)."""

    streams: int
    pairs: list[tuple[float, float]]

    @property
    def ratio(self) -> Ratio:
        """Throughput with the seal over that without."""
        return Ratio.of([sealed / free for sealed, free in self.pairs])


@contextlib.contextmanager
def engine(spec: Spec, folder: Path, program: Callable[..., list[str]]) -> Iterator[str]:
    """An engine under a keeper of `program`; yields its socket once it answers. Raises `processes.Broken`."""
    run, cache = folder / "run", folder / "cache"
    for made in (folder, run, cache):
        made.mkdir()
    order = launch(spec, run, cache, folder / "log")
    readable = [*order.readable, spec.python.resolve().parents[1]]
    keeper = program(
        "engines.keeper", f"--log={order.log}", *(f"--readable={path}" for path in readable),
        *(f"--writable={path}" for path in order.writable), "--", *order.argv,
    )  # fmt: skip
    exactly = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in order.env.items())]

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(str(order.socket)) == 0

    with processes.running([*exactly, *keeper], order.log, answers, seconds=START_SECONDS, environment={}):
        yield str(order.socket)


def compare(config: Config, counts: Sequence[int], tokens: int, pairs: int) -> list[Kept]:
    """`pairs` at each number of streams, half of them (rounded up) with one couple of engines, half with another.

    Raises `Invalid`, `processes.Broken`, `RuntimeError` when a stream fails, `StopIteration` without a card.
    """
    settings = config.settings.models.items()
    name, model = next((name, model) for name, model in settings if isinstance(model, LocalModel))
    cache = model.kv_cache.model_copy(update={"space_gib": 0.5, "gpu_memory_share": 0.4})  # room for two
    model = model.model_copy(update={"kv_cache": cache})
    spec = specs.spec(config, name, model, specs.device(config, Machine.here()))
    body = story(name, tokens)
    found: dict[int, list[tuple[float, float]]] = {streams: [] for streams in counts}
    for couple, share in enumerate((pairs - pairs // 2, pairs // 2)):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seal-")))
            at = {}
            for way in in_turn("sealed", "unsealed", couple):
                say(f"  starting the {way} engine")
                program = nursery.program if way == "sealed" else unsealed.program
                at[way] = stack.enter_context(engine(spec, folder / way, program))
            for way in at:
                load.batch(at[way], body, {}, max(counts))
            for streams in counts:
                for number in range(share):
                    rates = {}
                    for way in in_turn("sealed", "unsealed", number):
                        rates[way] = streams * tokens / load.batch(at[way], body, {}, streams).wall_seconds
                    found[streams].append((rates["sealed"], rates["unsealed"]))
                    say(
                        f"  {streams} streams, pair {len(found[streams])}/{pairs}: "
                        f"sealed {rates['sealed']:.0f} tok/s, unsealed {rates['unsealed']:.0f}"
                    )
    return [Kept(streams, rates) for streams, rates in found.items()]


def table(measured: Sequence[Kept]) -> str:
    """The engine's throughput as Markdown."""
    lines = ["| streams | unsealed, tok/s | sealed, tok/s | kept (95 % interval) |", "|---|---|---|---|"]
    for each in measured:
        sealed, free = (statistics.median(rates) for rates in zip(*each.pairs, strict=True))
        ratio = each.ratio
        lines.append(
            f"| {each.streams} | {free:.0f} | {sealed:.0f} | {ratio.median:.1%} ({ratio.low:.1%} to {ratio.high:.1%}) |"
        )
    return "\n".join(lines)
