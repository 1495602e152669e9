"""The seal of a detector: what its template's seal leaves it, it gives up as well.

All that reads texts is code and models of others. Under the template's seal it has no network and no files; under its
own it can't look into, signal or reach the gate, the template and other detectors, start a process or a thread, or open
any socket. What it has is memory, its time, and the one connection by which it gets texts.
"""

from __future__ import annotations

from appliance.seal import filters, kernel
from appliance.seal.parts import Parts, Seal, landlock_domain, landlock_scope


def seal_detector(*, best_effort: bool = False) -> Seal:
    """Shut this process off from those under the same seal. Call it in a process of one thread.

    Raises SealUnavailable at the first part that the kernel refuses, unless `best_effort`.
    """
    parts = Parts(best_effort=best_effort)
    parts.apply("landlock domain", landlock_domain)
    parts.apply("landlock scope", landlock_scope, optional=True)
    parts.apply("seccomp", lambda: kernel.seccomp(filters.detector()))
    return parts.seal()
