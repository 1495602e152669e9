"""Where a request is answered. Pure: it looks, it decides, it does nothing."""

from __future__ import annotations

import math
from hashlib import blake2b

from appliance.core import Request
from appliance.engines.served import Arms, Served, Split
from appliance.errors import BadRequest

_DRAWN = 2**64


def choose(request: Request, arms: Arms) -> Served:
    """What answers `request`: here always the house itself, by the stable version or by the candidate.

    Who is once among the candidate's stays there, and goes to the stable one only while the candidate can't answer.
    Raises `BadRequest` when the model is not for this kind of request.
    """
    stable, candidate = arms.stable, arms.candidate
    if not request.operation.suits(stable.task):
        raise BadRequest(
            f"the model {stable.name} is for {stable.task}, not for {request.operation.path}",
            param="model",
            code="model_not_suitable",
        )
    if candidate is not None and arms.split is not None and drawn(request, arms.split):
        return candidate if _able(request, candidate, stable) else stable
    return stable


def shadow(request: Request, arms: Arms) -> Served | None:
    """What gets a copy of `request`, if anything does: always an engine of this house."""
    candidate = arms.candidate
    if candidate is None or candidate.engine is None or arms.mirror is None:
        return None
    return candidate if drawn(request, arms.mirror) and _able(request, candidate, arms.stable) else None


def drawn(request: Request, split: Split) -> bool:
    """Whether `request` is in the share: the same for the same user or team, and still so when the share grows."""
    who = f"{split.salt}\0{_who(request, split)}".encode()
    number = int.from_bytes(blake2b(who, digest_size=8).digest())
    return number * 100 < split.percent * _DRAWN


def _able(request: Request, candidate: Served, stable: Served) -> bool:
    """Whether `candidate` could answer it now; of a shorter context than the stable one's, only what surely fits."""
    longest = candidate.context_length or math.inf
    if longest >= (stable.context_length or math.inf):
        longest = math.inf
    most = request.most_prompt_tokens + request.most_completion_tokens // request.choices
    return most <= longest and candidate.ready and request.operation.suits(candidate.task)


def _who(request: Request, split: Split) -> str:
    """Who stays together. Callers without a team go by user, without that by key."""
    caller = request.caller
    if split.by == "request":
        return f"request {request.id}"
    if split.by == "team" and caller.team is not None:
        return f"team {caller.team}"
    return f"user {caller.user}" if caller.user is not None else f"key {caller.key_id}"
