"""The gate: what a new engine has to pass before anybody is answered by it."""

from appliance.acceptance.gate import Acceptance
from appliance.acceptance.result import Result

__all__ = ["Acceptance", "Result"]
