"""Every error the appliance raises on purpose, in one tree.

ApplianceError
├── Invalid               a file an administrator wrote is wrong; holds every problem found
│   ├── ConfigInvalid     configs/appliance.yaml
│   ├── CardInvalid       models/<name>/card.yaml
│   └── SetInvalid        models/<name>/evals/*.yaml, or models/evals/*.yaml
├── WeightsInvalid        model files are missing, or are not the ones that were prepared
├── PreparationFailed     `models prepare` could not finish; nothing was left half done
├── BundleFailed          `appliance bundle` could not finish; nothing looks like a whole bundle
├── BundleInvalid         an unpacked bundle isn't whole, or isn't for this machine
├── SealUnavailable       the kernel refused a part of the seal
├── CannotListen          a socket can't be bound, or the one that systemd passed is unfit
├── OutletFailed          the processes through which requests leave did not start, or have ended
├── GateFailed            the processes that look through requests did not start, or have ended
├── EngineFailed          an engine did not start, stalled or died
│   └── NotAccepted       a new engine did not pass its card's gate
├── DoesNotFit            the models that are wanted need more memory than there is
├── NotRunning            no appliance answers on its control socket
├── NotAnswering          an appliance runs, but doesn't answer there
├── VerificationFailed    a verification didn't come to an end
├── LedgerFailed          the report of a verification can't be kept or read
├── AuditFailed           the audit log, or what belongs to it, can't be opened, read or changed
├── EvaluationFailed      an evaluation didn't come to an end; no result of it is kept
├── ListsFailed           the site's own lists of names can't be read or changed
└── Refused               a request that gets an error answer instead of a model's
    ├── BadRequest        400  the body, or one field of it
    ├── Unauthenticated   401
    ├── Forbidden         403  known, but not allowed to
    ├── NotFound          404  unknown path or model
    ├── MethodNotAllowed  405
    ├── BodyTooLarge      413
    ├── Conflict          409  it is in that state already, or changed meanwhile
    ├── RateLimited       429  a limit per minute, or on parallel requests
    ├── BudgetExceeded    429  a day's or a month's allowance is used up
    ├── Overloaded        429  the wait for an engine would be too long
    ├── BooksUnavailable  503  what is used can't be booked, so nothing is answered
    ├── AuditUnavailable  503  what happens can't be put on record, so nothing is answered
    ├── Loading           503  the engine is not ready yet
    ├── NotProven         503  the last verification of the seal failed
    ├── HeldBack          503  the house can't answer now, and the request may not leave it
    └── UpstreamFailed    502  the engine died or answered nonsense
        └── Unreachable        nobody listens there, so nothing was done

No message of any of them holds a prompt, an answer or a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


class ApplianceError(Exception):
    """Base of all errors raised on purpose. `str()` of it is fit for an administrator."""


def in_full(error: Exception) -> str:
    """For administrators of this host alone: where the log can't be written, file and reason, which no answer tells."""
    if isinstance(error, AuditUnavailable) and error.reason is not None:
        return f"the audit log can't be written: {error.reason}"
    return str(error)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: where, what, and what to do about it."""

    where: str
    what: str
    line: int | None = None

    def __str__(self) -> str:
        at = f"line {self.line}: " if self.line is not None else ""
        return f"{at}{self.where}: {self.what}" if self.where else f"{at}{self.what}"


class Invalid(ApplianceError):
    """A hand-written file is wrong. `problems` lists every finding, not only the first."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__(f"{file}:\n" + "\n".join(f"  {problem}" for problem in problems))


class ConfigInvalid(Invalid):
    """configs/appliance.yaml, or another config in its place, is wrong."""


class CardInvalid(Invalid):
    """A model card is wrong."""


class SetInvalid(Invalid):
    """A golden set is wrong."""


class WeightsInvalid(ApplianceError):
    """Model files are missing, or differ from the recorded checksums."""


class PreparationFailed(ApplianceError):
    """A model could not be prepared; nothing was left half done."""


class BundleFailed(ApplianceError):
    """A bundle could not be made; nothing stands where it would have been."""


class BundleInvalid(ApplianceError):
    """An unpacked bundle isn't whole, or isn't for this machine."""


class SealUnavailable(ApplianceError):
    """The kernel refused a part of the seal; the message says which and how to get it."""


class CannotListen(ApplianceError):
    """A socket can't be bound, or the one that systemd passed is unfit; the message says what to do."""


class OutletFailed(ApplianceError):
    """The outlet or the dialler did not start, has ended, or could not do what it was asked."""


class GateFailed(ApplianceError):
    """The gate or its detectors did not start, have ended, or could not do what they were asked."""


class EngineFailed(ApplianceError):
    """An engine did not start, stalled or died; the message holds the visible reason."""


class NotAccepted(EngineFailed):
    """A new engine did not pass its card's gate; the message says what was expected, what came and what to do."""


class DoesNotFit(ApplianceError):
    """The models that are wanted need more memory than there is; the message has the numbers and what to do."""


class NotRunning(ApplianceError):
    """No appliance answers on the control socket."""


class NotAnswering(ApplianceError):
    """An appliance runs, but doesn't answer on the control socket."""


class VerificationFailed(ApplianceError):
    """A verification didn't come to an end, so nothing is proven by it."""


class LedgerFailed(ApplianceError):
    """The report of a verification can't be kept or read; the message says why and what to do.

    `unkept` is the report that was to be kept: not numbered, not signed.
    """

    def __init__(self, message: str, unkept: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.unkept = unkept


class Refused(ApplianceError):
    """A request that is answered with an error envelope.

    `status` is the HTTP status, `kind` OpenAI's `type`, `code` a stable word for programs,
    `param` the name of the offending field, `retry_after` seconds for the header of that name. `reason`
    is for the log alone, where the answer must not tell what exactly was wrong; it holds no secret either.
    `headers` go out with the answer.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.reason = reason


class BadRequest(Refused):
    """The body, or the field named by `param`, can't be served as it is."""

    status = 400
    kind = "invalid_request_error"


class Unauthenticated(Refused):
    """No key, or not one of ours."""

    status = 401
    kind = "authentication_error"


class Forbidden(Refused):
    """Somebody we know asks for what the role, or the key, doesn't permit. The answer doesn't say which."""

    status = 403
    kind = "permission_error"


class NotFound(Refused):
    """No such path, or no such model."""

    status = 404
    kind = "invalid_request_error"


class MethodNotAllowed(Refused):
    """The path exists, the method does not."""

    status = 405
    kind = "invalid_request_error"


class BodyTooLarge(Refused):
    """The body is over `limits.body_bytes`."""

    status = 413
    kind = "invalid_request_error"


class Conflict(Refused):
    """What was asked for doesn't fit the state that the thing is in."""

    status = 409
    kind = "invalid_request_error"


class RateLimited(Refused):
    """A limit per minute or on parallel requests is reached; `retry_after` says when to come back."""

    status = 429
    kind = "rate_limit_error"


class BudgetExceeded(Refused):
    """A day's or a month's allowance is used up; the message and `retry_after` say until when.

    `step_down_to` is the smaller model that the config names for this case.
    """

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: int, step_down_to: str | None = None) -> None:
        super().__init__(message, code="budget_exceeded", retry_after=retry_after)
        self.step_down_to = step_down_to


class Overloaded(Refused):
    """Shed at once, since the wait for an engine would be longer than the request's class allows."""

    status = 429
    kind = "rate_limit_error"


class BooksUnavailable(Refused):
    """Nothing is served that can't be booked; it goes on by itself once the store takes entries again."""

    status = 503
    kind = "server_error"


class AuditUnavailable(Refused):
    """Nothing is served that can't be put on record; it goes on by itself once the log takes records again."""

    status = 503
    kind = "server_error"


class AuditFailed(ApplianceError):
    """The audit log, or what belongs to it, can't be opened, read or changed; the message says what to do."""


class EvaluationFailed(ApplianceError):
    """An evaluation didn't come to an end, or what it found can't be kept or read; the message says why."""


class ListsFailed(ApplianceError):
    """The site's own lists of names can't be read or changed; the message says what to do, and holds no name."""


class Loading(Refused):
    """The model exists but can't answer yet; `retry_after` says when to come back."""

    status = 503
    kind = "server_error"


class HeldBack(Refused):
    """The house can't answer at the moment, and what was asked may not leave it. `held` is a word of `privacy.Held`."""

    status = 503
    kind = "server_error"

    def __init__(self, message: str, *, held: str, retry_after: int | None = None) -> None:
        super().__init__(message, code="held_back", retry_after=retry_after)
        self.held = held
        self.headers = held_headers(held)


def held_headers(held: str) -> tuple[tuple[bytes, bytes], ...]:
    """What is sent with the refusal of a request that stayed in the house."""
    return (b"x-appliance-route", b"none"), (b"x-appliance-held", held.encode())


class NotProven(Refused):
    """Nothing is answered until the proof that nothing leaves holds again (`egress.verify.on_failure: stop`)."""

    status = 503
    kind = "server_error"


class UpstreamFailed(Refused):
    """The engine, or the endpoint in its place, died or answered what can't be passed on."""

    status = 502
    kind = "server_error"


class Unreachable(UpstreamFailed):
    """Nobody listens there, so nothing was done either."""
