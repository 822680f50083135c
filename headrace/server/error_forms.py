"""Errors as the protocol of an address writes them: headrace's envelope, or what the clients of others expect."""

from collections.abc import Mapping
from typing import Any

from headrace.errors import HeadraceError, UserError

_OVERLOADED = 429
_FAILED = 424
_OF_EMBEDDINGS = ("/predict", "/info")


def written(error: HeadraceError, status: int, path: str) -> tuple[int, Mapping[str, Any]]:
    """(HTTP status, body) of an error at an address.

    Args:
        status: what headrace's own interface answers; text-embeddings-inference has others for two kinds of errors.
    """
    if _is_of_tensors(path):
        return status, {"error": str(error)}
    if path in _OF_EMBEDDINGS:
        return _of_embeddings(error, status)
    return status, error.envelope()


def of_input(error: Mapping[str, Any], row_id: str) -> Mapping[str, Any]:
    """The error of one input as its client sees it.

    What a library said of its failure may name paths of this machine, so it is in the prediction log alone.
    """
    if error["code"] != HeadraceError.code:
        return error
    failure = HeadraceError("the model failed on this input", value=row_id, next_step="The prediction log says why")
    shown: Mapping[str, Any] = failure.envelope()["error"]  # type: ignore[assignment]
    return shown


def is_own(path: str) -> bool:
    """Whether errors at an address have headrace's envelope."""
    return not _is_of_tensors(path) and path not in _OF_EMBEDDINGS


def _is_of_tensors(path: str) -> bool:
    """Whether tensor clients ask here; of health they read the status alone, and headrace's client the envelope."""
    return path == "/v2" or (path.startswith("/v2/") and not path.startswith("/v2/health/"))


def _of_embeddings(error: HeadraceError, status: int) -> tuple[int, Mapping[str, Any]]:
    if error.retryable:
        kind, status = "Overloaded", _OVERLOADED
    elif isinstance(error, UserError):
        kind = "Validation"
    else:
        kind, status = "Backend", _FAILED
    return status, {"error": str(error), "error_type": kind}
