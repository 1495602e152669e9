"""What engines need, and whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.config import LocalModel
from appliance.engines.capacity import Gpu, Memory, Need, need, objection, place, place_beside, too_small
from appliance.engines.command import Spec
from appliance.weights.card import Card

CARD = {
    "title": "T",
    "description": "D",
    "task": "chat",
    "source": {"folder": "x"},
    "licence": "Apache-2.0",
    "quantization": "none",
    "context_length": 512,
    "languages": ["en"],
    "hardware": {"devices": ["cpu", "cuda"], "memory_gib": 5, "gpu_memory_gib": 8},
    "intended_use": "Tests.",
}
TWO = (Gpu(24), Gpu(24))


def spec(card: dict[str, Any] | None = None, device: Any = "cpu", **settings: Any) -> Spec:
    model = LocalModel.model_validate({"card": "one", **settings})
    return Spec("chat", Card.model_validate(CARD | (card or {})), model, Path("/w"), Path("/p"), device, "f" * 64)


def main(gib: float, *, idles: bool = False) -> Need:
    return Need({"engine": gib}, may_idle=idles)


def gpu(share: float, gpus: int = 1, *, idles: bool = False) -> Need:
    return Need({"engine": share * 24 * gpus}, "gpu", share, gpus, may_idle=idles)


def test_an_engine_needs_its_weights_its_cache_and_what_vllm_takes() -> None:
    found = need(spec(kv_cache={"space_gib": 0.5}), 0.2)
    assert found.parts == {"weights": 0.2, "KV cache": 0.5, "engine": 1.8}
    assert found.gib == pytest.approx(2.5)
    assert found.words == "weights 0.2, KV cache 0.5, engine 1.8"


@pytest.mark.parametrize(
    ("quantization", "weights"),
    [("none", 10), ("int8", 10), ("w4a16", 10), ("bitsandbytes-4bit", 13), ("int8-weight-only", 15)],
)
def test_weights_that_are_quantized_while_loading_are_there_twice_for_a_moment(
    quantization: str, weights: float
) -> None:
    assert need(spec({"quantization": quantization}), 10).parts["weights"] == pytest.approx(weights)


def test_a_model_that_only_reads_has_no_cache() -> None:
    assert need(spec({"task": "embedding"}), 0.1).parts.keys() == {"weights", "engine"}


def test_what_the_config_says_counts_before_what_was_measured_and_that_before_what_is_reckoned() -> None:
    assert need(spec(memory_gib=7), 0.2, measured=3.9).gib == 7
    assert need(spec(), 0.2, measured=3.9).gib == 3.9
    assert need(spec(), None).gib == 5, "the card's, since the weights aren't there"


def test_on_gpus_an_engine_takes_its_share_whatever_the_model() -> None:
    found = need(spec(device="cuda", tensor_parallel=2, kv_cache={"gpu_memory_share": 0.5}), 10, gpu=Gpu(24))
    assert (found.of, found.share, found.gpus, found.gib) == ("gpu", 0.5, 2, 24)


def test_what_does_not_fit_is_told_with_the_numbers() -> None:
    memory = Memory(total=16, free=3.4, reserve=1)
    why = objection({"chat": need(spec(kv_cache={"space_gib": 2}), 0.2)}, memory)
    assert why == (
        "chat needs 4 GiB (weights 0.2, KV cache 2, engine 1.8); 3.4 GiB are there for engines, "
        "of which 1 are kept in reserve"
    )
    assert objection({"chat": main(2.4)}, memory) is None


def test_what_engines_hold_already_is_there_for_them() -> None:
    assert objection({"a": main(4), "b": main(4)}, Memory(16, 4.5, 0.5), held=4) is None
    assert objection({"a": main(4), "b": main(4.1)}, Memory(16, 4.5, 0.5), held=4) is not None


def test_the_administrators_limit_holds_however_much_there_is() -> None:
    memory = Memory(total=64, free=60, reserve=1, most=8)
    assert objection({"a": main(4), "b": main(4)}, memory) is None
    why = objection({"a": main(4), "b": main(5)}, memory)
    assert why is not None
    assert why.endswith("9 together; `engines.memory_gib` lets engines take 8")


def test_of_models_that_may_idle_one_has_to_fit_beside_those_that_never_do() -> None:
    memory = Memory(total=10, free=10)
    both = {"a": main(4, idles=True), "b": main(5, idles=True)}
    assert objection({"always": main(5), **both}, memory) is None
    why = objection({"always": main(6), **both}, memory)
    assert why is not None
    assert "b needs 5" in why
    assert "a needs 4" not in why


def test_two_halves_share_a_gpu_and_a_third_goes_onto_the_next() -> None:
    assert place({"a": gpu(0.5), "b": gpu(0.5)}, TWO[:1]) == {"a": (0,), "b": (0,)}
    assert place({"a": gpu(0.45), "b": gpu(0.9), "c": gpu(0.45)}, TWO) == {"b": (0,), "a": (1,), "c": (1,)}
    assert place({"a": gpu(0.45), "b": gpu(0.6, 2)}, TWO) is None


def test_one_more_goes_where_least_is_left() -> None:
    standing = [((0,), 0.9), ((1,), 0.45)]
    assert place_beside(gpu(0.45), standing, TWO) == (1,)
    assert place_beside(gpu(0.05), standing, TWO) == (0,)
    assert place_beside(gpu(0.5, 2), [], TWO) == (0, 1)
    assert place_beside(gpu(0.6), standing, TWO) is None


def test_shares_over_a_whole_gpu_are_refused() -> None:
    memory = Memory(48, 48, gpus=TWO)
    assert objection({"a": gpu(0.45), "b": gpu(0.9), "c": gpu(0.45)}, memory) is None
    why = objection({"a": gpu(0.6), "b": gpu(0.6), "c": gpu(0.6)}, memory)
    assert why == (
        "the shares of GPU memory don't go onto 2 GPUs: a 0.6, b 0.6, c 0.6. Those on one GPU may be 1 together at "
        "most; lower `kv_cache.gpu_memory_share`"
    )
    assert objection({"a": gpu(0.6), "b": gpu(0.6, idles=True), "c": gpu(0.6, idles=True)}, memory) is None


def test_what_others_take_of_a_gpu_is_not_there() -> None:
    taken = Memory(24, 12, gpus=(Gpu(24, others=12),))
    assert objection({"a": gpu(0.5)}, taken) is None
    why = objection({"a": gpu(0.6)}, taken)
    assert why is not None
    assert "0.50 free" in why


def test_a_share_that_cannot_hold_the_weights_is_refused() -> None:
    small = spec(device="cuda", kv_cache={"gpu_memory_share": 0.3})
    assert too_small(small, 4, Gpu(24)) == "0.3 of a GPU of 24 GiB is 7.2 GiB, and one needs 8"
    assert too_small(small, 4, Gpu(40)) is None
    assert too_small(small, 20, Gpu(40)) is not None
