"""Every error headrace raises on purpose, in one tree.

    HeadraceError                  code                 http  retryable
    ├── UserError                                              what a person can mend: exit code 2, no traceback
    │   ├── BadInput               bad_input            422   a value in a request, row, file or option
    │   ├── BadConfig              bad_config           422   headrace.toml or HEADRACE_* says something unknown
    │   ├── NotFound               not_found            404   an id, name or path that is not there
    │   ├── AlreadyExists          already_exists       409   a name or id that is taken
    │   ├── WrongState             wrong_state          409   asked too early, too late or twice
    │   ├── Unauthorized           unauthorized         401   a request without a key that counts
    │   ├── Forbidden              forbidden            403   the key does not allow it
    │   ├── MissingExtra           missing_extra        501   an optional part of the package is not installed
    │   └── Unusable               unusable             507   a directory, port or database that cannot be used
    ├── Damaged                    damaged              500   stored bytes do not match their hash
    ├── JobFailed                  job_failed           500   background work ended with an error
    ├── Cancelled                  cancelled            499   background work was stopped on request
    ├── TooMany                    too_many             429   retryable: one channel asks for more than its share
    ├── TooLate                    too_late             504   retryable: no answer within the time allowed
    └── Unavailable                unavailable          503   retryable: overloaded, draining or restarting

Each message has three parts: what was wrong, the value, and the next step.
"""

from collections.abc import Mapping
from typing import Any


class HeadraceError(Exception):
    """Root of the tree. `code` is stable; `retryable` says whether the same call may succeed later."""

    code = "error"
    http_status = 500
    retryable = False

    def __init__(self, problem: str, *, value: object = None, next_step: str = "") -> None:
        self.problem, self.value, self.next_step = problem, value, next_step
        shown = "" if value is None else f": {_shorten(value)}"
        super().__init__(f"{problem}{shown}" + (f". {next_step}" if next_step else ""))

    def envelope(self) -> dict[str, object]:
        """The one JSON shape of an error, used by HTTP and by `--json`."""
        return {
            "error": {
                "code": self.code,
                "message": self.problem,
                "value": None if self.value is None else _shorten(self.value),
                "next_step": self.next_step,
                "retryable": self.retryable,
            }
        }


class UserError(HeadraceError):
    """Something a person can mend; the CLI exits with code 2 and prints no traceback."""


class BadInput(UserError):
    code = "bad_input"
    http_status = 422


class BadConfig(UserError):
    code = "bad_config"
    http_status = 422


class NotFound(UserError):
    code = "not_found"
    http_status = 404


class AlreadyExists(UserError):
    code = "already_exists"
    http_status = 409


class WrongState(UserError):
    code = "wrong_state"
    http_status = 409


class Unauthorized(UserError):
    code = "unauthorized"
    http_status = 401


class Forbidden(UserError):
    code = "forbidden"
    http_status = 403


class MissingExtra(UserError):
    """An optional part is not installed; the message is the pip line that installs it."""

    code = "missing_extra"
    http_status = 501

    def __init__(self, extra: str, *, library: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs {library}, which is not installed",
            next_step=f"Run: pip install 'headrace[{extra}]'",
        )


class Unusable(UserError):
    code = "unusable"
    http_status = 507


class Damaged(HeadraceError):
    code = "damaged"


class JobFailed(HeadraceError):
    code = "job_failed"


class Cancelled(HeadraceError):
    code = "cancelled"
    http_status = 499


class TooMany(HeadraceError):
    code = "too_many"
    http_status = 429
    retryable = True
    retry_after_s = 1.0
    """How long a client is told to wait."""


class TooLate(HeadraceError):
    code = "too_late"
    http_status = 504
    retryable = True


class Unavailable(HeadraceError):
    code = "unavailable"
    http_status = 503
    retryable = True


def from_envelope(envelope: Mapping[str, Any]) -> HeadraceError:
    """The error that an envelope stands for: what another process raised, raised here again.

    Raises:
        KeyError: not an envelope.
    """
    facts = envelope["error"]
    kind = _by_code(HeadraceError).get(facts["code"], HeadraceError)
    error = kind.__new__(kind)  # one of them is made from other arguments
    HeadraceError.__init__(error, facts["message"], value=facts["value"], next_step=facts["next_step"])
    return error


def nearest(word: str, known: list[str]) -> str:
    """A sentence naming the nearest known word, or all of them: the next step of many errors."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(sorted(known))}" if known else "None are known yet"


def _by_code(kind: type[HeadraceError]) -> dict[str, type[HeadraceError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found = _by_code(child) | found
    return found


def _shorten(value: object, limit: int = 200) -> str:
    """At most `limit` characters, so that what was shortened in one process stays as it is in the next."""
    text = value if isinstance(value, str) else repr(value)
    cut = f"... ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(cut)] + cut
