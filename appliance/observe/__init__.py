"""Logs and metrics. Neither ever holds a prompt, an answer, a personal name or a key."""

from __future__ import annotations

from appliance.observe.access import AccessLog, Persons
from appliance.observe.log import log_to
from appliance.observe.metrics import Metrics
from appliance.observe.record import Record

__all__ = ["AccessLog", "Metrics", "Persons", "Record", "log_to"]
