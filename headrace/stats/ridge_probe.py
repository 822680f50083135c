"""Ridge regression on the classes: what hundreds of trainings on parts of the rows would answer. numpy only.

A fit needs no more than sums over its rows, so that of many fits that share most rows each costs only its own part.
Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", sections 3.4.1 and 4.2.
Dimensions: N rows, D width, K classes, T held-out rows, F fits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PENALTY = 1.0
"""On squared weights of unit vectors; without it the error rises again where rows are about as many as dimensions."""
N_HALVINGS = 5
N_REPEATS = 5
LEAST_ROWS = 5
"""Of the smallest part."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sums:
    """All that a fit needs of its rows; those of disjoint rows add up."""

    squares: Floats
    """(D + 1, D + 1), the last line and column of a column of ones."""
    products: Floats
    """(D + 1, K) of the vectors with the classes."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.squares + other.squares, self.products + other.products)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.squares - other.squares, self.products - other.products)

    def answers(self, vectors: NDArray[Any], *, penalty: float = PENALTY) -> Ints:
        """The class (T) of each of T vectors (T, D)."""
        squares = self.squares.copy()
        inner = np.arange(len(squares) - 1)
        squares[inner, inner] += penalty
        squares[-1, -1] += 1e-9
        weights = np.linalg.solve(squares, self.products)
        found: Ints = (np.asarray(vectors, dtype=np.float64) @ weights[:-1] + weights[-1]).argmax(axis=1)
        return found


def sums(vectors: NDArray[Any], targets: Ints, n_classes: int) -> Sums:
    """Of vectors (N, D) and their classes (N)."""
    x = np.concatenate([np.asarray(vectors, dtype=np.float64), np.ones((len(targets), 1))], axis=1)
    products = np.zeros((n_classes, x.shape[1]))
    np.add.at(products, targets, x)
    return Sums(x.T @ x, products.T)


@dataclass(frozen=True, eq=False)
class Points:
    """Fits on parts of the rows, and which held-out rows each answers wrongly."""

    sizes: Floats
    """(F,) rows of the part."""
    wrong: Floats
    """(F, T) zeros and ones."""


def points(
    vectors: NDArray[Any],
    targets: Ints,
    held_out_vectors: NDArray[Any],
    held_out_targets: Ints,
    n_classes: int,
    *,
    seed: int,
    others: Sums | None = None,
    n_repeats: int = N_REPEATS,
) -> Points:
    """Fits on halves, quarters ... of the rows, each part drawn `n_repeats` times, and on all rows.

    Args:
        others: of rows that every fit has besides, such as those of other channels.
    """
    rng = np.random.default_rng(seed)
    n, found, sizes = len(targets), [], []
    for share in 2.0 ** -np.arange(N_HALVINGS):
        size = round(float(share) * n)
        if size < LEAST_ROWS:
            break
        for _ in range(n_repeats if size < n else 1):
            mine = rng.permutation(n)[:size]
            own = sums(vectors[mine], targets[mine], n_classes)
            answers = (own if others is None else own + others).answers(held_out_vectors)
            found.append(answers != held_out_targets)
            sizes.append(size)
    return Points(np.array(sizes, dtype=np.float64), np.array(found, dtype=np.float64).reshape(len(sizes), -1))
