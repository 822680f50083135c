"""What is told of an answer to who may not see scores: the label, and how sure it is in two digits.

Every digit more, and every further label, is something to train a copy of the model on.
"""

from collections.abc import Mapping
from typing import Any

from headrace.feedback.auditing import confidence_of

_N_DIGITS = 2
_SURE = ("confidence", "score")
_DETAILS = ("scores", "hits")


def coarse(output: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as served, of any task type, without its details."""
    kept = {name: _rounded(name, value) for name, value in output.items() if name not in _DETAILS}
    if "labels" in output and (sure := confidence_of(output)) is not None:
        kept["confidence"] = round(sure, _N_DIGITS)
    return kept


def _rounded(name: str, value: Any) -> Any:
    if name in _SURE and isinstance(value, float):
        return round(value, _N_DIGITS)
    if name == "entities":
        return [{part: _rounded(part, said) for part, said in entity.items()} for entity in value]
    return value
