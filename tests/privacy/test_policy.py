"""What the policy says: every class, use case, set of rules and provider, held to a plain reading of the table."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from appliance.config import Privacy, Provider, Rule
from appliance.core import DataClass
from appliance.privacy.policy import Decision, decide
from appliance.privacy.verdict import Held

AGREEMENT = "DPA 2026-04"


def provider(region: str | None = "eu", agreement: str | None = AGREEMENT) -> Provider:
    return Provider(url="https://api.example.com/v1", region=region, agreement=agreement)


def rule(data_class: str, use_case: str = "*", may: str = "pseudonymise", **more: Any) -> Rule:
    told: dict[str, Any] = {"purpose": "letters to clients", "regions": ["eu"], "agreement": AGREEMENT, **more}
    return Rule(data_class=DataClass(data_class), use_case=use_case, may=may, **told)  # type: ignore[arg-type]


def policy(*rules: Rule, floor: DataClass = DataClass.PUBLIC) -> Privacy:
    return Privacy(policy=list(rules), floor=floor)


@pytest.mark.parametrize("use_case", [None, "letters", "*"])
@pytest.mark.parametrize("data_class", DataClass)
def test_without_a_rule_everything_stays(data_class: DataClass, use_case: str | None) -> None:
    assert decide(Privacy(), {"a": provider()}, data_class, use_case) == Decision("stay", Held.POLICY)


CELLS = list(itertools.product(DataClass, ["*", "letters", "code"]))
ASKED = list(itertools.product(DataClass, [None, "letters", "code", "other"]))
PROVIDERS = {"far": provider("us"), "free": provider("eu", None), "bare": provider(None), "near": provider()}


@pytest.mark.parametrize("cells", [
    *itertools.combinations(CELLS, 1), *itertools.permutations(CELLS, 2), *itertools.combinations(CELLS, 3),
], ids=lambda cells: " ".join(f"{data_class}:{use_case}" for data_class, use_case in cells))  # fmt: skip
def test_the_first_rule_of_this_class_and_use_case_decides_and_no_other(
    cells: tuple[tuple[DataClass, str], ...],
) -> None:
    """As a person reads the table: down the rows, to the first with this very class and this use case, or all."""
    rules = [
        rule(data_class, use_case, purpose=f"purpose {number}") for number, (data_class, use_case) in enumerate(cells)
    ]
    privacy = Privacy.model_construct(policy=rules, floor=DataClass.PUBLIC)  # also what the config would refuse
    for data_class, use_case in ASKED:
        rows = [number for number, cell in enumerate(cells) if cell in ((data_class, "*"), (data_class, use_case))]
        decision = decide(privacy, PROVIDERS, data_class, use_case)
        if not rows:
            assert decision == Decision("stay", Held.POLICY)
        else:
            told = f"rule {rows[0] + 1}: {rules[rows[0]].title}"
            assert decision == Decision("pseudonymise", None, told, f"purpose {rows[0]}", ("near",))


REGIONS = [None, "eu", "us", "eu-west"]
AGREEMENTS = [None, AGREEMENT, "DPA 2025-01", AGREEMENT.lower()]


@pytest.mark.parametrize("regions", [["eu"], ["us"], ["eu", "us"], ["ch"]], ids="+".join)
def test_only_a_provider_with_both_the_region_and_the_agreement_is_named(regions: list[str]) -> None:
    pairs = list(itertools.product(REGIONS, AGREEMENTS))
    providers = {f"p{number}": provider(*pair) for number, pair in enumerate(pairs)}
    decision = decide(policy(rule("personal", regions=regions)), providers, DataClass.PERSONAL, None)
    fit = tuple(f"p{number}" for number, (region, agreement) in enumerate(pairs)
                if region in regions and agreement == AGREEMENT)  # fmt: skip
    assert decision.providers == fit
    assert (decision.may, decision.held) == (("pseudonymise", None) if fit else ("stay", Held.NO_PROVIDER))


def test_a_rule_without_a_provider_says_so_and_no_later_rule_takes_its_place() -> None:
    rules = rule("personal", "letters", regions=["ch"]), rule("personal")
    decision = decide(policy(*rules), {"near": provider()}, DataClass.PERSONAL, "letters")
    assert decision == Decision(
        "stay", Held.NO_PROVIDER, "rule 1: personal, use case letters", "letters to clients"
    )  # fmt: skip


def test_providers_come_in_the_order_of_the_config() -> None:
    providers = {name: provider() for name in ("zurich", "aachen", "mainz")}
    assert decide(policy(rule("personal")), providers, DataClass.PERSONAL, None).providers == (
        "zurich", "aachen", "mainz",
    )  # fmt: skip


def test_what_is_public_may_go_as_it_is() -> None:
    privacy = policy(rule("public", may="send"), rule("internal"))
    assert decide(privacy, PROVIDERS, DataClass.PUBLIC, None).may == "send"
    assert decide(privacy, PROVIDERS, DataClass.INTERNAL, None).may == "pseudonymise"


def test_a_use_case_called_like_all_is_none() -> None:
    """A caller can't name `*`, but whoever could would get no more than what holds for all."""
    assert decide(policy(rule("personal", "letters")), PROVIDERS, DataClass.PERSONAL, "*").may == "stay"
