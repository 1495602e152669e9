"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.errors import ApplianceError, ConfigInvalid, Invalid, NotRunning, Problem, WeightsInvalid

OK, FAILED, WRONG_INPUT, NOT_RUNNING = 0, 1, 2, 3

_EPILOG = """\
a first session:
  make serve                              set everything up and serve the default model
  appliance status                        what runs, and whether it is well
  appliance models list                   which models there are to choose from
  $EDITOR configs/appliance.yaml          name another card under models:
  appliance check-config                  is the file right?
  appliance models prepare NAME           fetch and convert its weights
  appliance apply                         swap it in while people work

exit status:
  0 done    1 it failed, nothing was changed    2 the config or command line is wrong
  3 no appliance is running
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (Invalid, WeightsInvalid) as refusal:
        return _complain(options, refusal, WRONG_INPUT)
    except NotRunning as refusal:
        return _complain(options, refusal, NOT_RUNNING)
    except ApplianceError as failure:
        return _complain(options, failure, FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return OK


def _complain(options: argparse.Namespace, error: ApplianceError, status: int) -> int:
    if getattr(options, "json", False):
        problems = [
            {"where": each.where, "line": each.line, "what": each.what} for each in getattr(error, "problems", [])
        ]
        _print(json.dumps({"error": str(error), "problems": problems}))
    else:
        sys.stderr.write(f"appliance: {error}\n")
    return status


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _serve(options: argparse.Namespace) -> int:
    from appliance import app, config

    return app.serve(config.load(options.config))


def _check_config(options: argparse.Namespace) -> int:
    from appliance import config
    from appliance.engines.fleet import check

    loaded = config.load(options.config)
    check(loaded)
    models = ", ".join(loaded.settings.models)
    _print(
        json.dumps({"ok": True, "models": list(loaded.settings.models)})
        if options.json
        else f"✓ {options.config} is right (models: {models})"
    )
    return OK


def _apply(options: argparse.Namespace) -> int:
    from appliance import config, control
    from appliance.console import Progress

    loaded = config.load(options.config)
    (status,) = control.ask(loaded.state, "GET", "/status")
    if status["config"] != str(loaded.file):
        what = f"the appliance on this state folder runs on {status['config']}; apply that, or restart it with this one"
        raise ConfigInvalid(str(loaded.file), [Problem("", what)])
    show = Progress()
    for line in control.ask(loaded.state, "POST", "/apply"):
        if "progress" in line:
            show.say(line["progress"])
        elif "error" in line:
            raise ApplianceError(f"nothing was changed: {line['error']}")
        else:
            show.done("applied")
            changes = line["changes"]
            _print(
                json.dumps(line)
                if options.json
                else "\n".join(f"  {change}" for change in changes) or "  nothing to change"
            )
            return OK
    raise ApplianceError("the appliance ended before it had applied the config")


def _status(options: argparse.Namespace) -> int:
    from appliance import config, control

    (status,) = control.ask(config.load(options.config).state, "GET", "/status")
    ready = all(model["state"] in ("ready", "endpoint") for model in status["models"].values())
    if options.json:
        _print(json.dumps(status, indent=1))
    else:
        _print("\n".join(_status_lines(status)))
    return OK if ready else FAILED


def _status_lines(status: dict[str, Any]) -> list[str]:
    egress = status["egress"]
    lines = [
        f"address   {status['address']}",
        f"config    {status['config']}",
        f"egress    {egress['mode']}; the gateway's seal holds: {', '.join(egress['holds']) or 'nothing'}",
        *(f"        ! {part}" for part in egress["missing"]),
    ]
    for name, model in status["models"].items():
        state = model["state"] + (f" ({model['stage']})" if model.get("stage") else "")
        about = f"{model['card']}, {model['requests']} requests now" if "card" in model else ""
        lines.append(f"model     {name:<16} {state:<10} {about}")
        lines += [f"        ! {fault}" for fault in (model.get("reason"), *model.get("seal_missing", ())) if fault]
    return lines


def _models_list(options: argparse.Namespace) -> int:
    from appliance import config
    from appliance.weights.card import load_card

    loaded = config.load(options.config)
    served: dict[str, list[str]] = {}
    for name, model in loaded.settings.models.items():
        if model.kind == "card":
            served.setdefault(model.card, []).append(name)
    rows: list[dict[str, Any]] = []
    for file in sorted(loaded.models_folder.glob("*/card.yaml")):
        card = load_card(file.parent)
        rows.append(
            {
                "name": file.parent.name,
                "title": card.title,
                "task": card.task,
                "quantization": card.quantization,
                "context_length": card.context_length,
                "devices": list(card.hardware.devices),
                "licence": card.licence,
                "prepared": (file.parent / "weights" / "manifest.json").exists(),
                "served_as": served.get(file.parent.name, []),
            }
        )
    if options.json:
        _print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        state = "prepared" if row["prepared"] else "to prepare"
        names = f"served as {', '.join(row['served_as'])}" if row["served_as"] else ""
        _print(
            f"{row['name']:<22} {row['task']:<10} {row['quantization']:<18} {row['context_length']:>7} tokens  "
            f"{'+'.join(row['devices']):<9} {state:<11} {names}"
        )
    return OK


def _models_prepare(options: argparse.Namespace) -> int:
    from appliance import config
    from appliance.console import Progress
    from appliance.weights.prepare import prepare

    loaded = config.load(options.config)
    show = Progress()
    environment = loaded.path(loaded.settings.engines.preparation_environment)
    for name in options.names:
        show.say(name)
        folder = prepare(name, loaded.models_folder, environment, show.say)
        show.done(f"{name} is prepared")
        if options.json:
            _print(json.dumps({"name": name, "weights": str(folder)}))
    return OK


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = argparse.ArgumentParser(
        prog="appliance",
        description="Serves open-weight models on this host to the apps of this house, and to nobody else.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        group: Any,
        name: str,
        run: Callable[[argparse.Namespace], int],
        summary: str,
        about: str,
        *,
        script: bool = True,
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = group.add_parser(
            name, help=summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument(
            "--config", type=Path, default=Path("configs/appliance.yaml"), metavar="FILE",
            help="the config (default: %(default)s)",
        )  # fmt: skip
        if script:
            command.add_argument("--json", action="store_true", help="print JSON, for scripts")
        command.set_defaults(run=run)
        return command

    add(commands, "serve", _serve, "run the appliance", (
        "Start the engines of the config, seal this process off the network, and serve until SIGTERM or Ctrl-C.\n"
        "Prints the address and, at the first start, a key. Logs go to the state folder."
    ), script=False)  # fmt: skip
    add(commands, "apply", _apply, "put the edited config into effect while people work", (
        "Tell the running appliance to read its config again. New engines start beside the old ones; when all\n"
        "have answered, the names move over and the old engines finish their requests. If anything is wrong,\n"
        "nothing changes and this says why."
    ))  # fmt: skip
    add(commands, "check-config", _check_config, "say whether the config is right", (
        "Read the config and the cards it names; report every mistake with its line. Changes nothing."
    ))  # fmt: skip
    add(commands, "status", _status, "show what runs and whether it is well", (
        "Show the state of each model and of the seal. Exit status 0 only when every model can answer."
    ))  # fmt: skip
    models = commands.add_parser("models", help="list and prepare models", description="Look after models.")
    group = models.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(group, "list", _models_list, "list the models that have a card", (
        "List the cards under the models folder: what each is, whether its weights are prepared, who serves it."
    ))  # fmt: skip
    command = add(group, "prepare", _models_prepare, "fetch and convert the weights of a model", (
        "Bring the weights that a card describes, check their checksums, quantize them where the card says so,\n"
        "and put them beside the card. What is already there is left alone; a failure leaves nothing half done."
    ))  # fmt: skip
    command.add_argument("names", nargs="+", metavar="NAME", help="folder under models/")
    return root


if __name__ == "__main__":
    sys.exit(main())
