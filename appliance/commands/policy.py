"""`appliance policy test`: what would happen to a text, and why. Nothing is sent, and nothing of it is kept."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import OK, write
from appliance.console import alarm, bold, waiting
from appliance.errors import ApplianceError, BadRequest, Conflict, NotRunning

if TYPE_CHECKING:
    from appliance.config import Config
    from appliance.privacy.asked import Asked

_WIDTH = 100
_GRACE = 5.0
"""Seconds beside the detectors' own limit in which an appliance that runs has answered."""
_CHECKS = {
    "operation": "a kind of request that may leave",
    "size": "not too large",
    "readable": "nothing that nobody here can read",
    "language": "in a language that the detectors know",
    "secrets": "no password, key or token",
    "policy": "a rule lets it out, and a provider fits",
    "remains": "nothing of an original remains after masking",
    "second_look": "the second, stricter look finds nothing",
    "words": "every word is known and ordinary",
}


def test(options: argparse.Namespace) -> int:
    """Show what would happen to a text, and why."""
    from appliance import config
    from appliance.api.bodies.base import parse
    from appliance.api.bodies.policy import Explain

    loaded = config.load(options.config)
    text = _text(options.file)
    told = {"operation": options.operation, "use_case": options.use_case, "data_class": options.data_class}
    body = _request(text) | {name: value for name, value in told.items() if value is not None}
    settings = loaded.settings
    asked = parse(Explain, json.dumps(body).encode()).asked(settings.privacy, settings.accounts, settings.limits)
    with waiting(lambda: "looking through the text"):
        try:
            shown, where = _asked(loaded, body), "by the appliance that runs here"
        except (NotRunning, Conflict):
            shown, where = _here(loaded, asked), "by this command; no appliance that lets anything out runs here"
    write(json.dumps(shown) if options.json else "\n".join(_lines(shown, loaded, where)))
    return OK


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        why = cause.strerror if isinstance(cause, OSError) else "it is no text in UTF-8"
        raise BadRequest(f"{file} can't be read: {why}") from cause


def _request(text: str) -> dict[str, Any]:
    """A whole request, as JSON, or else a text that somebody might write."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {"text": text}
    return {"request": body} if isinstance(body, dict) and "messages" in body else {"text": text}


def _asked(config: Config, body: dict[str, Any]) -> dict[str, Any]:
    """What the appliance that runs says. Raises `NotRunning`, and `Conflict` for one that lets nothing out."""
    from appliance import control

    patience = config.settings.privacy.detectors.seconds + _GRACE
    (answer,) = control.ask(config.state, "POST", "/policy/explain", body, patience=patience)
    if "error" in answer:
        raise (Conflict if answer.get("code") == "nothing_leaves" else ApplianceError)(answer["error"])
    return answer


def _here(config: Config, asked: Asked) -> dict[str, Any]:
    """The same by detectors and a gate of this command's own, with the rules and lists of the config."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from appliance.api.bodies.policy import explained
    from appliance.privacy.detect.detector import Detector
    from appliance.privacy.gate import Gate
    from appliance.privacy.here import Here
    from appliance.privacy.site.lists import Lists

    settings = config.settings
    rampart = settings.privacy.detectors.rampart
    detectors = settings.privacy.detectors.model_copy(update={"rampart": rampart and config.path(rampart)})
    detector = Detector(detectors, Lists(config.lists).every())
    key = Ed25519PrivateKey.generate()  # clears nothing: no outlet knows it
    gate = Gate(settings.privacy, settings.egress.providers, Here(detector), key)
    return explained(asyncio.run(gate.explain(asked)), settings.privacy, words=True)


def _lines(shown: dict[str, Any], config: Config, where: str) -> Iterator[str]:
    """What a person reads: the answer first, then why."""
    yield ""
    if shown["leaves"]:
        targets = [_provider(config, name) for name in shown["providers"]]
        yield f"  {bold('May leave')}   where the house can't answer in time, masked as below, to {', '.join(targets)}"
    else:
        yield f"  {bold('Stays')}       {alarm(shown['held'].replace('_', ' '))}: {shown['why']}"
    yield f"  Class       {shown['data_class']}"
    yield f"  Rule        {shown['rule'] or 'none lets it out'}"
    if shown["purpose"]:
        yield f"  Purpose     {shown['purpose']}"
    yield f"  Looked at   {where}"
    yield ""
    for check in shown["checks"]:
        mark = {True: "✓", False: alarm("✗"), None: "·"}[check["passed"]]
        yield f"  {mark} {_CHECKS[check['check']]}{'' if check['passed'] is not None else ' (not looked at)'}"
    finds = [(text["path"], find) for text in shown["texts"] for find in text["finds"]]
    yield ""
    yield f"  {bold('Found')}       {len(finds) or 'nothing'}"
    for path, find in finds:
        words = textwrap.shorten(_visible(find["words"]), 48, placeholder=" …")
        yield f"    {find['kind']:<17} {words:<48} {find['score']:.2f}  {find['source']:<12} {path}"
    for text in shown["texts"]:
        yield ""
        yield f"  {bold('Masked')}      {text['path']}"
        for line in map(_visible, text["masked"].splitlines()):
            yield from textwrap.wrap(line, _WIDTH, initial_indent="    ", subsequent_indent="    ") or [""]
    yield ""


def _visible(text: str) -> str:
    """What a terminal shows, and takes for nothing else."""
    return "".join(each if each.isprintable() or each.isspace() else "�" for each in text)


def _provider(config: Config, name: str) -> str:
    provider = config.settings.egress.providers.get(name)
    return name if provider is None else f"{name} ({provider.region}, {provider.agreement})"
