"""`appliance plan`: what it shows, with and without enough memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.__main__ import main
from appliance.commands.plan import lines
from appliance.engines.capacity import Gpu, Memory
from appliance.engines.fitting import Fitting, fitting
from appliance.engines.measured import Measured
from appliance.engines.specs import Machine, require_shares, specs
from appliance.errors import ConfigInvalid
from tests.fakes.house import House


@pytest.fixture
def house(house: House) -> House:
    house.card("one")
    house.card("two")
    house.card("vectors", task="embedding")
    house.serve("chat", "one", memory_gib=None)
    return house


def plan(house: House, memory: Memory, **engines: Any) -> Fitting:
    on = "cuda" if memory.gpus else "cpu"
    loaded = config.load(house.write(engines=house.settings["engines"] | engines))
    return fitting(loaded, on, memory, 0, Measured(Path("/nonexistent")))  # type: ignore[arg-type]


def test_the_command_says_what_fits_without_an_appliance(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.serve("chat", "one", memory_gib=0.1)
    assert main(["plan", "--config", str(house.write())]) == 0
    shown = capsys.readouterr().out
    assert "chat: one needs 0.1 GiB (as `memory_gib` says)" in shown
    assert "✓ all of them fit together (no appliance runs" in shown
    house.serve("chat", "one", memory_gib=10_000)
    assert main(["plan", "--json", "--config", str(house.write())]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["fits"]
    assert told["cards"]["two"]["fits_instead_of"] == []


def test_what_fits_is_drawn_to_scale(house: House) -> None:
    memory = Memory(total=16, free=12, reserve=1)
    assert lines(plan(house, memory), memory, {"chat": 3.7}, running=True) == [
        "Main memory: 16.0 GiB",
        "  others     0.3  ▒                                       │",
        "  chat       3.8   █████████                              │",
        "  reserve    1.0            ···                           │",
        "  free      10.9                                          │",
        "",
        "  chat: one needs 3.8 GiB (weights 0, KV cache 2, engine 1.8); holds 3.7 now",
        "✓ all of them fit together",
        "",
        "Cards that aren't served",
        "  two                    chat         3.8 GiB  fits besides all of them or in the place of chat",
        "  vectors                embedding    1.5 GiB  fits besides all of them",
    ]


def test_what_does_not_fit_comes_with_ways_to_make_it_fit(house: House) -> None:
    house.serve("other", "two", memory_gib=None)
    memory = Memory(total=8, free=7, reserve=1)
    found = plan(house, memory)
    assert found.why is not None
    assert "7.6 together; 7 GiB are there for engines, of which 1 are kept in reserve" in found.why
    assert found.advice == (
        "a smaller KV cache: `models.chat.kv_cache.space_gib: 0.3` (now 2); fewer or shorter conversations at once go "
        "into it",
        "let models take turns: `idle: {after_seconds: 600}` for each; whoever asks for one that idles waits for its "
        "start",
    )
    shown = "\n".join(lines(found, memory, {}, running=False))
    assert "missing" in shown
    assert "✗ it doesn't fit" in shown
    house.serve("chat", "one", memory_gib=None, kv_cache={"space_gib": 0.3})
    assert plan(house, memory).why is None, "as it was advised"


def test_a_limit_of_the_administrators_is_told(house: House) -> None:
    memory = Memory(total=64, free=60, reserve=1, most=3)
    found = plan(house, memory, memory_gib=3)
    assert found.why is not None
    assert "`engines.memory_gib` lets engines take 3" in found.why
    assert found.advice[-1] == "a higher `engines.memory_gib`: this host has more"


def test_shares_of_two_gpus_are_checked_before_anything_starts(house: House) -> None:
    two = (Gpu(24), Gpu(24))
    for name, share in {"chat": 0.9, "other": 0.45, "third": 0.45}.items():
        house.serve(name, "one", kv_cache={"gpu_memory_share": share})

    def check() -> None:
        house.settings["engines"]["device"] = "auto"
        loaded = config.load(house.write())
        require_shares(loaded, specs(loaded, Machine(cuda=True)), two)

    check()
    house.serve("third", "one", kv_cache={"gpu_memory_share": 0.6})
    with pytest.raises(ConfigInvalid, match="the shares of GPU memory don't go onto 2 GPUs"):
        check()
    memory = Memory(48, 48, gpus=two)
    assert plan(house, memory).why is not None
    house.serve("third", "one", kv_cache={"gpu_memory_share": 0.05})
    with pytest.raises(ConfigInvalid, match=r"models\.third\.kv_cache\.gpu_memory_share: 0\.05 of a GPU of 24 GiB is"):
        check()
