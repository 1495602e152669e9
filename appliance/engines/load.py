"""What an engine says of its own work, read from vLLM's metrics."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.engines.upstream import Upstream

_RUNNING, _WAITING, _CACHE = b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc"
_ANSWERS, _PROMPTS, _STEPS = b"generation_tokens_total", b"prompt_tokens_total", b"iteration_tokens_total_sum"


@dataclass(frozen=True, slots=True)
class Load:
    """One reading of an engine, as of its last step. One that was never read has `moved` -1."""

    running: int = 0
    """Sequences that it computes in each step."""
    waiting: int = 0
    """Sequences that it has taken in and doesn't compute yet."""
    kv_cache_share: float = 0.0
    """How full its KV cache is, 0 to 1; what is only kept for prompts that begin alike doesn't count."""
    tokens: float = 0.0
    """Tokens of prompts and answers that it has finished so far."""
    moved: float = -1.0
    """A sum of counters that changes with every token that is computed, also in the midst of a prompt."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.running + self.waiting == 0


async def ask(control: Upstream) -> Load:
    """Read an engine's metrics. Raises `UpstreamFailed` or `ValueError` when they can't be had."""
    response = await control.get("/metrics")
    try:
        return read(await response.whole())
    finally:
        response.close()


def read(metrics: bytes) -> Load:
    """Read Prometheus text. Raises `ValueError` when the engine's counters aren't in it."""
    metrics = b"\n" + metrics  # so that each line begins alike
    running, waiting, cache = (_samples(metrics, name) for name in (_RUNNING, _WAITING, _CACHE))
    answers, prompts, steps = (_samples(metrics, name) for name in (_ANSWERS, _PROMPTS, _STEPS))
    if not (running or waiting or answers):
        raise ValueError("no counters of vLLM in its metrics")
    tokens = sum(answers) + sum(prompts)
    return Load(
        running=int(sum(running)),
        waiting=int(sum(waiting)),
        kv_cache_share=max(cache, default=0.0),  # of several engines behind one server, the fullest stops first
        tokens=tokens,
        moved=tokens + sum(steps),
    )


def _samples(metrics: bytes, name: bytes) -> list[float]:
    """The values of one metric. A pattern over the whole page, of which six lines matter, took five times as long."""
    found, begin = [], b"\nvllm:" + name
    at = metrics.find(begin)
    while at >= 0:
        end = metrics.find(b"\n", at + 1)
        line = metrics[at + 1 : end if end >= 0 else None]
        if line[len(begin) - 1 :][:1] in (b"{", b" "):  # else another metric's name that begins alike
            found.append(float(line[line.rindex(b" ") :]))
        at = metrics.find(begin, at + 1)
    return found
