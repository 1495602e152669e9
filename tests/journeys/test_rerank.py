"""Chat, vectors and a reranker at once: each answers what it is for."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.fakes.house import House, Running

ASKED = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "tokens=1"}]},
    "/v1/embeddings": {"input": "one"},
    "/v1/rerank": {"query": "one", "documents": ["two", "three"]},
    "/v1/score": {"text_1": "one", "text_2": ["two", "three"]},
}


@pytest.fixture
def three(house: House, start: Callable[..., Running]) -> Running:
    """`chat`, `vectors` and `order`, which is a cross-encoder."""
    for name, task in (("chat", "chat"), ("vectors", "embedding"), ("order", "rerank")):
        house.card(f"{task}-card", task=task)
        house.serve(name, f"{task}-card")
    return start(house).ready("chat").ready("vectors").ready("order")


def test_a_reranker_orders_and_scores_as_a_model_of_vectors_does_and_makes_no_vectors(three: Running) -> None:
    def answers(client: httpx.Client, model: str) -> set[str]:
        got = {path: client.post(path, json={"model": model, **body}) for path, body in ASKED.items()}
        for path, answer in got.items():
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_suitable"), path
        return {path for path, answer in got.items() if answer.status_code == 200}

    with three.client() as client:
        assert answers(client, "chat") == {"/v1/chat/completions"}
        assert answers(client, "vectors") == {"/v1/embeddings", "/v1/rerank", "/v1/score"}
        assert answers(client, "order") == {"/v1/rerank", "/v1/score"}
