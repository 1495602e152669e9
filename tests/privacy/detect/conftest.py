"""The pattern tier, compiled once."""

from __future__ import annotations

import pytest

from appliance.config import Detectors
from appliance.privacy.detect.detector import Detector
from appliance.privacy.detect.patterns import Patterns, patterns


@pytest.fixture(scope="session")
def tier() -> Patterns:
    """It keeps nothing between texts."""
    return patterns()


@pytest.fixture(scope="session")
def detector() -> Detector:
    """All detectors, without lists of a site's own; loading takes seconds."""
    return Detector(Detectors(), ())
