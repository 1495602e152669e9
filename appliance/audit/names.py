"""The names of all acts and incidents, so that somebody who asks for one that isn't there is told."""

from __future__ import annotations

ACTS = (
    "config.apply", "egress.verdict", "erase", "eval.trial", "export", "hold", "holds.repair", "keys.create",
    "keys.lend", "keys.revoke", "keys.rotate", "lists.change", "lists.show", "models.add", "models.fetch",
    "policy.explain", "read", "release", "report", "retention", "reveal.approve", "reveal.ask", "reveal.show",
    "reveal.unseal", "rollout.drop", "rollout.promote", "rollout.weight", "start", "stop",
)  # fmt: skip
INCIDENTS = (
    "audit_broken", "audit_key_changed", "audit_no_record", "audit_note_lost", "audit_torn", "audit_unwritable",
    "books_unavailable", "engine_down", "holds_lost", "identity_unavailable", "proof_overdue", "retention_failed",
    "seal_not_proven", "shipping_again", "shipping_anew", "shipping_failed", "shipping_missed", "shipping_refused",
    "subjects_lost", "timestamps_again", "timestamps_failed",
)  # fmt: skip
