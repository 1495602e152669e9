"""The gateway's own packages are quiet too, whatever the environment that it is started in says."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from unittest.mock import Mock

import pytest
from fastapi import FastAPI

from appliance.api.routes import build
from appliance.telemetry import SILENT
from tests.engines.test_command import of, spec
from tests.fakes.house import ROOT

ENGINE = of(spec()).env


def test_the_gateway_takes_no_exporter_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example.com")
    assert FastAPI()._telemetry["auto_configure"], "the control: it would"
    ours = build(Mock(), "1")._telemetry
    assert not any(ours[signal] for signal in ("auto_configure", "tracing", "metrics", "logs"))


@pytest.mark.parametrize(
    "package", ["opentelemetry-sdk", "opentelemetry-exporter", "sentry-sdk", "posthog", "wandb", "arcjet"]
)
def test_the_gateways_lock_holds_no_package_that_reports(package: str) -> None:
    locked = (ROOT / "configs/locks/gateway.txt").read_text()
    assert "\nfastapi==" in locked
    assert f"\n{package}==" not in f"\n{locked}"


def test_every_switch_is_explained() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    explained = re.findall(r"`([A-Z_*]+)(?:=\w+)?`", page)
    assert [name for name in SILENT if not any(fnmatchcase(name, pattern) for pattern in explained)] == []
    assert [pattern for pattern in explained if not any(fnmatchcase(name, pattern) for name in ENGINE)] == []
