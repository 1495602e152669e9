"""One real appliance with a chat and an embedding model, for all tests that only ask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from tests.real.house import Appliance, card


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def appliance() -> Iterator[Appliance]:
    """Serves `chat` in INT8 and `embed`. Whoever harms it takes one of their own."""
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        running = Appliance(Path(folder), {"chat": card("smollm2-135m-int8"), "embed": card("minilm-l6")})
        try:
            yield running.ready()
        finally:
            running.stop()


@pytest.fixture(scope="session")
def gpt(appliance: Appliance) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of it."""
    with appliance.openai() as client:
        yield client


@pytest.fixture(scope="session")
def claude(appliance: Appliance) -> Iterator[anthropic.Anthropic]:
    """Anthropic's own client of it."""
    with appliance.anthropic() as client:
        yield client


@pytest.fixture(scope="session")
def http(appliance: Appliance) -> Iterator[httpx.Client]:
    """A plain client of it, with its key."""
    with appliance.http() as client:
        yield client
