"""Which channels keep an adapter of their own: decided on held-out rows, for all channels together. Pure.

A row is *won* where the adapter does better than the shared model, *lost* where it does worse. Right or wrong counts
where rows are right or wrong; else the row's F1, or its absolute error.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.evaluate.evaluating import places_by_channel
from headrace.records import SnapshotRow
from headrace.stats import paired
from headrace.tasks import UNCALIBRATED, Additive, Calibration, Outputs, TaskType

Evidence = dict[str, Any]
_RIGHT = "single_label_classification"


def too_small(
    n_train: Mapping[str, int], n_validation: Mapping[str, int], *, alpha: float, min_rows: int
) -> dict[str, Evidence]:
    """The channels for which no adapter need be tried, since nothing could come of it, and why.

    Args:
        n_train: training rows of each channel.
        n_validation: validation rows of each channel.
    """
    needed, found = paired.n_needed(1, alpha=alpha), {}
    for channel, n_rows in n_train.items():
        n = n_validation.get(channel, 0)
        if n_rows < min_rows:
            found[channel] = _untried(n, alpha, f"{_rows(n_rows, 'training ')} to learn from, and it takes {min_rows}")
        elif n < needed:
            found[channel] = _untried(n, alpha, f"{_few(n)}: at least {needed} would be needed")
    return found


def _untried(n: int, alpha: float, reason: str) -> Evidence:
    return {"n": n, "level": alpha, "p": None, "p_holm": None, "kept": False, "reason": f"{reason}; not trained"}


def decide(
    task_type: TaskType,
    rows: Sequence[SnapshotRow],
    shared: Outputs,
    own: Outputs,
    *,
    calibration: Calibration = UNCALIBRATED,
    alpha: float,
) -> dict[str, Evidence]:
    """Whether each channel keeps its adapter, with the numbers that it rests on and the reason, as JSON.

    It does where a one-sided test of its rows comes out at level `alpha`, after Holm's correction over the channels
    whose test could come out at all, and its main metric is not lower. The test is McNemar's, exact, where rows are
    right or wrong, and of sign flips otherwise. So the chance that any channel keeps an adapter that does not help is
    at most `alpha`, on rows like these.

    Args:
        rows: the validation side, of the channels that have an adapter.
        shared: (N, K), or (N,) of tasks on tokens; of the shared model, in the order of `rows`.
        own: the same, each row by its channel's adapter.
        calibration: what both are read by.
    """
    places = places_by_channel(rows)
    before, after = (row_scores(task_type, rows, outputs, calibration) for outputs in (shared, own))
    gains = {channel: (after - before)[mine] for channel, mine in places.items()}
    n_differing = {channel: int(np.count_nonzero(gain)) for channel, gain in gains.items()}
    tested = paired.worth_testing(n_differing, alpha=alpha)
    test = _mcnemar if task_type.problem == _RIGHT else paired.sign_flips
    p_values = {channel: test(gain) for channel, gain in gains.items()}
    adjusted = paired.holm({channel: p_values[channel] for channel in tested})
    found = {}
    for channel, mine in places.items():
        targets = [rows[i].target for i in mine]
        mains = [_main(task_type, targets, outputs[mine], calibration) for outputs in (shared, own)]
        evidence = {
            "n": len(mine),
            "n_won": int((gains[channel] > 0).sum()),
            "n_lost": int((gains[channel] < 0).sum()),
            "paired_test": "mcnemar" if task_type.problem == _RIGHT else "sign-flips",
            "p": p_values[channel],
            "p_holm": adjusted.get(channel),
            "n_tested": len(tested),
            "level": alpha,
            "metric": task_type.main_metric,
            "shared": mains[0],
            "own": mains[1],
            "mean_gain": float(gains[channel].mean()),
        }
        kept, reason = _verdict(evidence, needed=paired.n_needed(max(1, len(tested)), alpha=alpha))
        found[channel] = {**evidence, "kept": kept, "reason": reason}
    return found


def against_old(
    task_type: TaskType,
    rows: Sequence[SnapshotRow],
    old: Outputs,
    own: Outputs,
    *,
    calibration: Calibration = UNCALIBRATED,
    alpha: float,
) -> Evidence:
    """Whether a channel's new adapter is worse than the one that it replaces, with the numbers and the reason, as JSON.

    It is where the one-sided test of `decide`, asked the other way round, comes out at level `alpha`: an adapter that
    is no worse is turned down with chance `alpha` at most, on rows that neither was chosen by. The old one was chosen
    by the rows of its time, which speaks for it: what errs here errs to the side of leaving things as they are.

    Args:
        rows: the validation side of the channel.
        old, own: (N, K), or (N,) of tasks on tokens; in the order of `rows`.
        calibration: what both are read by.
    """
    before, after = (row_scores(task_type, rows, outputs, calibration) for outputs in (old, own))
    gain = after - before
    p = (_mcnemar if task_type.problem == _RIGHT else paired.sign_flips)(-gain)
    won, lost = int((gain > 0).sum()), int((gain < 0).sum())
    is_worse = bool(gain.sum() < 0) and p <= alpha
    reason = f"{won} won and {lost} lost of {_rows(len(rows), 'validation ')} against the adapter before: "
    reason += f"{'worse' if is_worse else 'not found worse'}, p = {p:.2g} at level {alpha:g}"
    return {"n_won": won, "n_lost": lost, "p_worse": p, "level": alpha, "is_worse": is_worse, "reason": reason}


def row_scores(
    task_type: TaskType, rows: Sequence[SnapshotRow], outputs: Outputs, calibration: Calibration
) -> NDArray[np.float64]:
    """How well each row is answered (N,); more is better."""
    targets = [row.target for row in rows]
    if isinstance(task_type, Additive):
        figures = task_type.figures(task_type.row_counts(targets, outputs, calibration))
        f1 = figures.get("f1", figures.get("micro_f1"))
        return np.nan_to_num(np.asarray(f1, dtype=np.float64), nan=1.0)  # nothing was asked and nothing answered
    return _BY_PROBLEM[task_type.problem](task_type, targets, outputs, calibration)


def _right(task_type: TaskType, targets: Sequence[Any], outputs: Outputs, calibration: Calibration) -> Any:
    answers = task_type.decode(outputs, calibration)
    pairs = zip(answers, targets, strict=True)
    return np.array([task_type.answers_match(answer, target) for answer, target in pairs], dtype=np.float64)


def _nearness(_: TaskType, targets: Sequence[Any], outputs: Outputs, __: Calibration) -> Any:
    return -np.abs(outputs[:, 0].astype(np.float64) - np.asarray(targets, dtype=np.float64))


_BY_PROBLEM: dict[str, Callable[[TaskType, Sequence[Any], Outputs, Calibration], NDArray[np.float64]]] = {
    _RIGHT: _right,
    "regression": _nearness,
}


def _mcnemar(gains: NDArray[np.float64]) -> float:
    return paired.mcnemar(int((gains > 0).sum()), int((gains < 0).sum()))


def _main(task_type: TaskType, targets: Sequence[Any], outputs: Outputs, calibration: Calibration) -> float | None:
    value = task_type.metrics(targets, outputs, calibration)[task_type.main_metric]
    return None if value is None else float(value)


def _verdict(evidence: Evidence, *, needed: int) -> tuple[bool, str]:
    """Whether the adapter is kept, and why in plain words."""
    n, won, lost = (evidence[key] for key in ("n", "n_won", "n_lost"))
    differing = won + lost
    told = f"{won} won and {lost} lost of {_rows(n, 'validation ')}"
    if not differing:
        return False, f"{told}: the adapter does no better and no worse than the shared model"
    if evidence["p_holm"] is None:
        n_rows = -(-needed * n // differing)
        return False, (
            f"{_few(n)}: {told}, and it takes {needed} that differ, all won; "
            f"at this rate about {n_rows} rows or more would be needed"
        )
    chance = f"p = {evidence['p']:.2g}, {evidence['p_holm']:.2g} after Holm over {_channels(evidence['n_tested'])}"
    if evidence["mean_gain"] <= 0:
        return False, f"{told}: not better on the mean ({chance})"
    if evidence["p_holm"] > evidence["level"]:
        return False, f"{told} may be chance: {chance}, above {evidence['level']:g}"
    before, after = evidence["shared"], evidence["own"]
    if before is not None and after is not None and after < before:
        return False, f"{told}, but {evidence['metric']} falls from {before:.3f} to {after:.3f}"
    return True, f"{told}: {chance}, at level {evidence['level']:g}"


def _few(n: int) -> str:
    return f"{_rows(n, 'validation ')} {'is' if n == 1 else 'are'} too few to tell"


def _rows(n: int, kind: str) -> str:
    return f"{n} {kind}{'row' if n == 1 else 'rows'}"


def _channels(n: int) -> str:
    return f"{n} {'channel' if n == 1 else 'channels'}"
