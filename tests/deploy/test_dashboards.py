"""The dashboards ask for what the appliance shows, in Prometheus's own language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from appliance.core import Caller, Operation, Request, Task
from appliance.observe import Metrics
from appliance.rollout.numbers import Numbers

FOLDER = Path(__file__).parents[2] / "configs" / "grafana"
DASHBOARDS = sorted(file.name for file in FOLDER.glob("*.json"))


def queries(name: str) -> Iterator[str]:
    """All that a dashboard asks for, as Prometheus would hear it."""
    dashboard = json.loads((FOLDER / name).read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$model", ".*")


def shown() -> set[str]:
    """The names and labels of all series that an appliance with a rollout has."""
    metrics = Metrics()
    request = Request("r", Caller("k"), Operation("chat", "/x", Task.CHAT, "messages"), "chat", b"{}")
    record = metrics.open(request)
    with record:
        record.turn("one@1")
        record.token()
        record.token()
    metrics.settle(record)
    metrics.rated("chat", "one@1", "up")
    metrics.copied("chat", "one@1", "answered")
    metrics.decisions.labels("chat", "dropped", "rule").inc()
    metrics.watch_rollouts(lambda: [("chat", "one@1", "stable", dict.fromkeys(Numbers().figures, 1.0))])
    return set(re.findall(r"^(appliance_\w+)\{", metrics.render().decode(), re.MULTILINE))


def test_there_is_one() -> None:
    assert "models.json" in DASHBOARDS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_panel_asks_for_series_that_there_are(name: str) -> None:
    asked = {each for query in queries(name) for each in re.findall(r"appliance_\w+", query)}
    assert asked
    assert asked <= shown(), asked - shown()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_panel_says_what_it_shows_and_none_covers_another(name: str) -> None:
    dashboard = json.loads((FOLDER / name).read_text())
    places = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed (Debian: prometheus)")
@pytest.mark.parametrize("name", DASHBOARDS)
def test_prometheus_understands_every_query(name: str, tmp_path: Path) -> None:
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries(name))]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
