"""Learning curves: what more labels of a channel would bring to it, on frozen vectors, beside the others' rows.

The interval of a forecast holds what the law leaves open (headrace/stats/learning_curves.py) and that held-out rows are
a sample: the law is fitted anew to redraws of them. Pure.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import learning_curves, ridge_probe
from headrace.stats.ridge_probe import Points
from headrace.valuing.sources import Material

N_MORE = 100
"""Labels that a gain is quoted for."""
LEVEL = learning_curves.LEVEL
_LEAST_TRAIN, _LEAST_HELD_OUT = 40, 20
_TIMES = (1, 2, 4)  # rows of now that are forecast
_N_REDRAWS = 30
_N_KEPT = 200  # draws of each redraw
_MOST_CHANNELS = 30
_SEED = 0
Floats = NDArray[np.float64]


def by_channel(given: Material) -> list[dict[str, Any]]:
    """The curve of all rows, whose channel is None, then that of each channel; one that cannot be had says why."""
    train, held_out = given.train, given.held_out
    everything = ridge_probe.sums(train.vectors, train.targets, given.n_classes)
    n_used = {i: int((given.train_channels == i).sum()) for i in range(len(given.channels))}
    drawn = sorted(n_used, key=lambda i: -n_used[i])[:_MOST_CHANNELS]
    seen = ridge_probe.points(
        train.vectors, train.targets, held_out.vectors, held_out.targets, given.n_classes, seed=_SEED
    )
    found = [described(None, sum(given.n_rows.values()), seen)]
    for i, name in enumerate(given.channels):
        mine, theirs = given.train_channels == i, held_out.owners == i
        n_rows = sum(n for source, n in given.n_rows.items() if source.channel == name)
        reason = _reason_against(i in drawn, n_used[i], int(theirs.sum()))
        if reason is not None:
            found.append({"channel": name, "n_rows": n_rows, "n_held_out": int(theirs.sum()), "reason": reason})
            continue
        own = ridge_probe.sums(train.vectors[mine], train.targets[mine], given.n_classes)
        seen = ridge_probe.points(
            train.vectors[mine],
            train.targets[mine],
            held_out.vectors[theirs],
            held_out.targets[theirs],
            given.n_classes,
            seed=_SEED,
            others=everything - own,
        )
        found.append(described(name, n_rows, seen))
    return found


def _reason_against(is_drawn: bool, n_train: int, n_held_out: int) -> str | None:
    if n_train < _LEAST_TRAIN:
        return f"a curve needs {_LEAST_TRAIN} training rows of the channel"
    if n_held_out < _LEAST_HELD_OUT:
        return f"a curve needs {_LEAST_HELD_OUT} test rows of the channel"
    return None if is_drawn else f"only the {_MOST_CHANNELS} channels with most rows have one"


def described(channel: str | None, n_now: int, seen: Points) -> dict[str, Any]:
    """A curve as JSON: what was seen, what is forecast for now and for more rows, and what more labels gain."""
    about = {"channel": channel, "n_rows": n_now, "n_held_out": seen.wrong.shape[1]}
    sizes = [float(n_now * times) for times in _TIMES]
    drawn = _draws(seen, np.array([float(n_now), *sizes, float(n_now + N_MORE)]))
    if drawn is None:
        return {**about, "reason": f"the law needs {learning_curves.MIN_SIZES} different numbers of rows"}
    errors, floors = drawn
    return {
        **about,
        "seen": [
            {"n_rows": int(n), "error": round(float(seen.wrong[seen.sizes == n].mean()), 6)}
            for n in np.unique(seen.sizes)
        ],
        "forecast": [{"n_rows": int(n), "error": asdict(_interval(errors[:, i + 1]))} for i, n in enumerate(sizes)],
        "n_more": N_MORE,
        "gain_points": asdict(_interval(100 * (errors[:, 0] - errors[:, -1]))),
        "floor": asdict(_interval(floors)),
    }


def forecast(seen: Points, n_rows: float) -> Interval | None:
    """The error at so many rows; None where the parts are too few."""
    drawn = _draws(seen, np.array([n_rows]))
    return None if drawn is None else _interval(drawn[0][:, 0])


def _draws(seen: Points, sizes: Floats) -> tuple[Floats, Floats] | None:
    """Errors (R, sizes) and floors (R) of laws that fit redraws of the held-out rows; None without a law.

    One more row, that all fits answer alike, may be drawn with them: no mistake in T rows does not mean none ever.
    """
    rng = np.random.default_rng(_SEED)
    n = seen.wrong.shape[1] + 1
    errors, floors = [], []
    for number in range(_N_REDRAWS):
        counts = rng.multinomial(n, np.full(n, 1 / n))
        drawn = (seen.wrong @ counts[:-1] + rng.integers(0, 2) * counts[-1]) / n
        curve = learning_curves.fit(seen.sizes.tolist(), drawn.tolist())
        if curve is None:
            return None
        errors.append(learning_curves.draws(curve, sizes, seed=number)[:_N_KEPT])
        floors.append(rng.choice(curve.laws[:, 0], size=_N_KEPT, p=curve.weights))
    return np.concatenate(errors), np.concatenate(floors)


def _interval(values: Floats) -> Interval:
    low, middle, high = (round(float(v), 6) for v in np.quantile(values, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]))
    return Interval(middle, low, high, LEVEL)
