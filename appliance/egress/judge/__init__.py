"""What is said about a verification's findings: each thing that has to hold, and what stands against it.

Pure: findings in, checks out. A violation says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from appliance.egress.findings import Check, Findings
from appliance.egress.judge import attempts, confinement, held, surroundings

_RULES = (
    confinement.seal,
    confinement.processes,
    confinement.threads,
    confinement.namespaces,
    confinement.networks,
    held.sockets,
    surroundings.host_sockets,
    surroundings.mounts,
    attempts.probes,
    surroundings.destinations,
    surroundings.trouble,
)


def judge(findings: Findings) -> list[Check]:
    """All checks, in the order in which a person should read them."""
    return [rule(findings) for rule in _RULES]
