"""What `make install-offline` runs before anything else: is this bundle whole, and is it for this machine?

    python3 -m appliance.bundle.check --device cpu

Run by the host's own Python: nothing is installed yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.bundle import about, sums
from appliance.console import Progress
from appliance.errors import BundleInvalid


def main(arguments: list[str] | None = None) -> int:
    """Check the bundle that this file lies in; returns an exit status."""
    parser = argparse.ArgumentParser(prog="appliance.bundle.check", description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True, help="what this machine is to serve on")
    options = parser.parse_args(arguments)
    return check(Path(__file__).resolve().parents[2], options.device)


def check(bundle: Path, device: str) -> int:
    """Hold `bundle` against its checksums and against this machine; 1, with the reason told, where it doesn't fit."""
    progress = Progress()
    try:
        edited = sums.verify(bundle, progress.say)
        about.check(about.read(bundle), about.this_machine(device))
    except BundleInvalid as refusal:
        sys.stderr.write(f"\nThis bundle can't be installed. {refusal}\n")
        return 1
    progress.done("the bundle is whole")
    for name in edited:
        sys.stderr.write(f"  {name} has been edited; it is kept as yours\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
