"""The command line."""

from __future__ import annotations

import argparse
import json
import sys

from appliance import commands
from appliance.errors import ApplianceError, BadRequest, Invalid, NotFound, NotRunning, WeightsInvalid, in_full
from appliance.grammar import parser

WRONG_INPUT, NOT_RUNNING = 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (Invalid, WeightsInvalid, BadRequest, NotFound) as refusal:
        return _complain(options, refusal, WRONG_INPUT)
    except NotRunning as refusal:
        return _complain(options, refusal, NOT_RUNNING)
    except ApplianceError as failure:
        return _complain(options, failure, commands.FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return commands.OK


def _complain(options: argparse.Namespace, error: ApplianceError, status: int) -> int:
    if getattr(options, "json", False):
        problems = [
            {"where": each.where, "line": each.line, "what": each.what} for each in getattr(error, "problems", [])
        ]
        commands.write(json.dumps({"error": in_full(error), "problems": problems}))
    else:
        sys.stderr.write(f"appliance: {in_full(error)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
