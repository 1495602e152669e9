"""What can be said on the command line, and what its help says."""

from __future__ import annotations

import argparse

from appliance import __version__
from appliance.grammar import audit, evaluation, keys, models, privacy, rollout, running

_EPILOG = """\
a first session:
  make serve                              set everything up and serve the default model
  appliance status                        what runs, and whether it is well
  appliance keys create --user anna       a key for a colleague
  appliance models list                   which models there are to choose from
  $EDITOR configs/appliance.yaml          name another card under models:
  appliance models prepare NAME           fetch and convert its weights
  appliance apply --dry-run               is the file right, and what would it change?
  appliance apply                         swap it in while people work
  appliance rollback                      go back to the model before

exit status:
  0 done    1 it failed, nothing was changed    2 the config or command line is wrong
  3 no appliance is running
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = argparse.ArgumentParser(
        prog="appliance",
        description="Serves open-weight models on this host to the apps of this house, and to nobody else.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=__version__)
    top = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for part in (running, rollout, keys, privacy, audit, models, evaluation):
        part.add_to(top)
    return root
