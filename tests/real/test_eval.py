"""`appliance eval` on the real engine: the default model knows what any model knows, every time."""

from __future__ import annotations

import json

from tests.real.house import Appliance


def test_the_default_model_passes_the_shipped_smoke_set_with_the_same_marks_each_time(appliance: Appliance) -> None:
    asked = ["eval", "chat", "--set", "smoke", "--repeat", "2", "--perplexity", "--keep-answers", "--json"]
    done = appliance.run(*asked)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    (smoke,) = found["sets"]
    assert [case["passed"] for case in smoke["cases"]] == [1, 1, 1, 1]
    assert all(len(set(case["answers"])) == 1 for case in smoke["cases"]), "without chance, whatever the seed"
    surprise = {text["language"]: text["perplexity"] for text in found["texts"]}
    assert 20 < surprise["en"] < 35 < surprise["de"] < 45, "docs/benchmarks.md: else the engine calculates otherwise"
    assert found["engine"].startswith("vllm")
