"""Rerank and score, which no official SDK speaks."""

from __future__ import annotations

import httpx
import pytest

DOCUMENTS = ["Bananas are yellow.", "Paris is the capital of France.", "The invoice is overdue."]


def test_rerank_puts_the_document_that_answers_first(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={"model": "embed", "query": "capital of France", "documents": DOCUMENTS})
    first, *others = answer.json()["results"]
    assert first["index"] == 1
    assert first["document"]["text"] == DOCUMENTS[1]
    assert all(first["relevance_score"] > other["relevance_score"] + 0.5 for other in others)


def test_rerank_takes_objects_and_a_top_n(http: httpx.Client) -> None:
    body = {"model": "embed", "query": "fruit", "documents": [{"text": text} for text in DOCUMENTS], "top_n": 1}
    (result,) = http.post("/v1/rerank", json=body).json()["results"]
    assert result["index"] == 0


def test_score_compares_one_text_with_many_and_pair_by_pair(http: httpx.Client) -> None:
    one = {"model": "embed", "text_1": "Hello world", "text_2": ["Hi world", "The invoice is overdue"]}
    like, unlike = (item["score"] for item in http.post("/v1/score", json=one).json()["data"])
    pairs = one | {"text_1": ["Hello world", "Hello world"]}
    assert like > 0.7 > 0.3 > unlike
    assert [item["score"] for item in http.post("/v1/score", json=pairs).json()["data"]] == pytest.approx(
        [like, unlike], abs=1e-3
    )
