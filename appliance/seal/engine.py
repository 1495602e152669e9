"""The seal of an engine: it needs sockets to itself (gloo), so it gets a network without a way out.

Namespaces of its own for network, processes, shared memory and mounts, the last of which hides every folder
where a host daemon may keep a Unix socket; no capability; a filter with four socket families.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from appliance.seal import filters, kernel, view
from appliance.seal.parts import (
    Parts,
    Seal,
    landlock_domain,
    landlock_scope,
    may_administrate,
    new_network,
    new_user_namespace,
    no_new_privileges,
)


class EngineSeal:
    """The engine's seal, in the two steps that a new process namespace forces.

    `leave()` in the keeper moves it, and its future children's process ids, into namespaces of their
    own; `close()` in the first child does the rest. Both raise SealUnavailable unless `best_effort`.
    """

    def __init__(self, *, best_effort: bool = False) -> None:
        self._parts = Parts(best_effort=best_effort)
        self.alone = False
        """Whether children get a process namespace, whose end is theirs."""

    def leave(self) -> None:
        """Enter new user (where CAP_SYS_ADMIN is absent), network, IPC and process namespaces."""
        apply = self._parts.apply
        if not may_administrate():
            apply("user namespace", new_user_namespace)
        apply("network namespace", new_network)
        apply("ipc namespace", lambda: kernel.unshare(kernel.CLONE_NEWIPC))
        self.alone = apply("process namespace", lambda: kernel.unshare(kernel.CLONE_NEWPID))

    def close(self, readable: Mapping[Path, int], writable: Mapping[Path, int]) -> Seal:
        """Hide what `view.covered` names but for the given paths, give up all privileges, filter system calls.

        `readable` paths can be read, `writable` ones written too; all other files turn read-only. Each comes without
        a symbolic link in it, and with an open descriptor of what it shows.
        """
        apply = self._parts.apply
        kept = {**readable, **writable}
        hidden = view.covered()
        if apply("mount namespace", view.new_mounts):
            apply("hidden folders", lambda: view.hide(hidden, kept))
            apply("fresh proc", view.fresh_proc)
            # After it, so that root can't have the kernel run a program outside (kernel.core_pattern).
            apply("read-only files", lambda: view.protect(set(hidden) - kept.keys(), writable))
        os.chdir("/")  # a working directory below a hidden folder would still reach into it
        apply("no new privileges", no_new_privileges)
        apply("capabilities dropped", kernel.drop_capabilities)
        apply("landlock domain", landlock_domain)
        apply("landlock scope", landlock_scope, optional=True)
        apply("seccomp", lambda: kernel.seccomp(filters.engine(alone=self.alone)))
        return self._parts.seal()
