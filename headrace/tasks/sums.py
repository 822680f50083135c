"""Figures from sums over rows, for task types that are `Additive`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.tasks import FloatArray


def share(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    """part / whole (...,), nan where the whole is 0."""
    numbers = np.asarray(part, dtype=np.float64)
    shares: FloatArray = np.divide(numbers, whole, out=np.full(numbers.shape, np.nan), where=np.asarray(whole) > 0)
    return shares


def as_json(figures: Mapping[str, FloatArray]) -> dict[str, float | None]:
    """Figures of one sum as numbers; None for nan."""
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}
