"""Who may do what: one table, of least privilege. Who administers doesn't ask; who audits does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from appliance.core import Caller, Role
from appliance.errors import Forbidden


class Permission(StrEnum):
    """What a route can need. The values are what docs/api.md prints."""

    ASK = "ask models"
    SEE_MODELS = "see models"
    SEE_OWN_USAGE = "see own usage"
    KEEP_TEMPLATES = "keep own prompt templates"
    RUN_BATCHES = "run own batches"
    SEE_KEYS = "see keys"
    MANAGE_KEYS = "manage keys"
    GRANT_ROLES = "grant every role"
    SEE_USAGE = "see all usage and budgets"
    READ_AUDIT = "read audit and reports"
    REVEAL = "reveal a person together with somebody else"
    EXPLAIN_POLICY = "ask what of a text may leave, and why"


_USER = frozenset({Permission.ASK, Permission.SEE_MODELS, Permission.SEE_OWN_USAGE})
_ADMIN = frozenset({
    Permission.SEE_KEYS, Permission.MANAGE_KEYS, Permission.SEE_USAGE, Permission.SEE_MODELS, Permission.EXPLAIN_POLICY,
})  # fmt: skip

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType({
    Role.USER: _USER,
    Role.POWER_USER: _USER | {Permission.KEEP_TEMPLATES, Permission.RUN_BATCHES},
    Role.ADMIN: _ADMIN,
    Role.SUPER_ADMIN: _ADMIN | {Permission.GRANT_ROLES, Permission.REVEAL},
    Role.AUDITOR: frozenset({Permission.READ_AUDIT, Permission.REVEAL, Permission.EXPLAIN_POLICY}),
})  # fmt: skip


def require(caller: Caller, permission: Permission) -> None:
    """Raise `Forbidden` unless the caller's role has `permission`."""
    if permission not in PERMISSIONS[caller.role]:
        raise not_allowed(f"role {caller.role} may not {permission}")


def grantable(role: Role) -> frozenset[Role]:
    """The roles whose keys somebody of `role` may make, see and change."""
    may = PERMISSIONS[role]
    if Permission.MANAGE_KEYS not in may:
        return frozenset()
    return frozenset(Role) if Permission.GRANT_ROLES in may else frozenset({Role.USER, Role.POWER_USER})


def not_allowed(reason: str) -> Forbidden:
    """The one answer to all that isn't permitted; `reason` is for the log and tells nobody else anything."""
    return Forbidden("this key doesn't permit that; ask an administrator", code="not_allowed", reason=reason)
