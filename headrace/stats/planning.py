"""How many requests and labels a release will take to find a drop, or show a gain, of a given size. Numpy only.

Evidence grows as a walk that goes up or down by one, and the release is decided when the walk first meets the boundary
of its test. The chance of that at every step is summed up exactly, over all paths at once. Where a walk is so long that
this would take too many steps, it is looked at through a coarser one: a step of h stands for h * h steps of one, which
has the same drift and spread (Donsker 1951, "An invariance principle for certain probability limit theorems").

Shadow (`paired`): the walk is wins minus losses over the disagreements, which alone get labels; `no_worse`: the bets
that are won and lost over all requests.
A/B (`unpaired`) and canary (`ramped`): the bets that are won and lost over all answers, each of which needs a label.
Bandit (`best_of_two`): requests go where labels tell most, which no sum over paths follows: simulated, with a seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.stats import best_arm, beta_mixture, confidence_sequences, noninferiority
from headrace.stats.beta_mixture import log_gamma

_N_STEPS = 10_000  # of the walk that is summed up, coarser ones beyond: half a second
_TAIL = 8  # how much longer than expected a walk is followed; what is left after that is below 1e-4
_SIGNIFICANT_SD = 9  # chances further from the middle than that are below 1e-18
_MOST = 1e9  # more steps than anyone will take
_MOST_DRIFT = 0.99  # of a walk of unit steps
_N_HALVINGS = 26
_N_EXACT = 3000  # labels up to which E is exact
_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_N_KNOTS = 48  # at which a boundary is found
_SEED, _N_RUNS = 1, 200  # of simulated releases
_N_BETWEEN, _GROWTH = 10, 0.03  # labels between two looks: ten, or that share of all before
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What a release will take; `median` and `p90` are passed by half and by a tenth of such releases.

    `n_requests` and `n_labels` are enough for a decision with chance `power`. Requests are all that arrive while the
    release is open. Costs are of labels, in the unit of the price; None without one.
    """

    n_requests_mean: int
    n_requests_median: int
    n_requests_p90: int
    n_labels_mean: int
    n_labels_median: int
    n_labels_p90: int
    power: float
    n_requests: int
    n_labels: int
    cost_median: float | None = None
    cost_p90: float | None = None


def paired(
    disagreement_share: float,
    drop: float,
    alpha: float = 0.05,
    *,
    power: float = 0.8,
    both_wrong_share: float = 0.0,
    label_share: float = 1.0,
    n_hypotheses: int = 1,
    price_per_label: float | None = None,
) -> Plan:
    """A shadow release, decided by the e-process of `stats.evalues` at 1 / alpha.

    Args:
        disagreement_share: of the requests, on which the two versions answer differently, as seen on held-out rows.
        drop: accuracy of the control minus that of the candidate, in shares of 1: .02 is 2 points. A gain, below 0,
            takes as long to show as a drop of its size takes to find.
        both_wrong_share: of those disagreements, on which neither is right: they take a label and say nothing.
        label_share: of the disagreements, that get a label at all.
        n_hypotheses: channels that are watched at once; each then needs E of n_hypotheses / alpha (Holm's first step).

    Raises:
        ValueError: no drop, or one that so few disagreements cannot make.
    """
    telling = disagreement_share * (1 - both_wrong_share)
    _check(drop, telling, alpha=alpha, power=power, label_share=label_share)
    threshold = math.log(n_hypotheses / alpha)
    steps, chances = _first_passage(abs(drop) / telling, lambda n: _lead_needed(n, threshold))
    return _plan(
        steps,
        chances,
        labels_per_step=1 / (1 - both_wrong_share),
        request_share=telling * label_share,
        power=power,
        price_per_label=price_per_label,
    )


def unpaired(
    accuracy: float,
    drop: float,
    alpha: float = 0.05,
    *,
    power: float = 0.8,
    control_share: float = 0.5,
    candidate_share: float = 0.5,
    label_share: float = 1.0,
    centre: float = 0.8,
    n_hypotheses: int = 1,
    price_per_label: float | None = None,
) -> Plan:
    """An A/B release, decided by the bets of `stats.confidence_sequences` at 1 / alpha.

    Args:
        accuracy: of the control.
        drop: accuracy of the control minus that of the candidate, in shares of 1; below 0 for a gain.
        control_share, candidate_share: of the requests, that each of the two arms answers.
        label_share: of their answers, that get a label.
        centre: the accuracy that the bets expect; the default is that of the policies.

    Raises:
        ValueError: no drop, or one that leads to an accuracy outside 0..1.
    """
    _check(drop, accuracy if drop > 0 else 1 - accuracy, alpha=alpha, power=power, label_share=label_share)
    both = control_share + candidate_share
    steps, chances = _answers_needed(accuracy, drop, candidate_share / both, centre, math.log(n_hypotheses / alpha))
    return _plan(
        steps,
        chances,
        labels_per_step=1.0,
        request_share=both * label_share,
        power=power,
        price_per_label=price_per_label,
    )


def _answers_needed(
    accuracy: float, drop: float, share: float, centre: float, threshold: float
) -> tuple[Floats, Floats]:
    """When the bets on two arms of which the candidate has `share` are won: labelled answers (T,) and chances (T,)."""
    expected = accuracy - drop
    chances_of = np.array([1 - accuracy, accuracy, 1 - expected, expected]) * np.repeat([1 - share, share], 2)
    above, below = confidence_sequences.bets(share, centre).stakes()[:, 0]
    won = np.outer(confidence_sequences.estimates(share, centre), above if drop < 0 else -below)
    drift, slopes, drifts = _as_walk(chances_of, np.log1p(won))
    return _first_passage(drift, lambda n: _place_needed(n, slopes, drifts, confidence_sequences.log_e, threshold))


@dataclass(frozen=True)
class Stage:
    """A stage of a ramp: the candidate answers `share` of the requests, a slice of the control as many."""

    share: float
    n_requests: float
    """That arrive while it lasts, at either arm or at none."""


def ramped(
    accuracy: float,
    drop: float,
    alpha: float = 0.05,
    *,
    stages: Sequence[Stage],
    power: float = 0.8,
    label_share: float = 1.0,
    centre: float = 0.8,
    n_hypotheses: int = 1,
    price_per_label: float | None = None,
) -> tuple[Plan, float]:
    """A release that goes through stages, each of which shares requests out evenly between the two arms it compares.

    The plan is of finding the drop as if the last stage went on until then; requests are walked stage by stage at the
    rate at which labelled answers come on average. Beside it the chance that the drop is found by the end of the last
    stage, when a canary promotes what was not found worse.

    Args:
        accuracy, drop, centre: as in `unpaired`; so are the errors.
    """
    _check(drop, accuracy if drop > 0 else 1 - accuracy, alpha=alpha, power=power, label_share=label_share)
    steps, chances = _answers_needed(accuracy, drop, 0.5, centre, math.log(n_hypotheses / alpha))
    rates = np.array([2 * stage.share * label_share for stage in stages])
    requests = np.concatenate([[0.0], np.cumsum([stage.n_requests for stage in stages])])
    labels = np.concatenate([[0.0], np.cumsum([stage.n_requests for stage in stages] * rates)])
    walked = np.interp(steps, labels, requests) + np.maximum(0.0, steps - labels[-1]) / rates[-1]
    decided = chances.cumsum()
    places = [min(int(np.searchsorted(decided, level - 1e-12)), len(steps) - 1) for level in (0.5, 0.9, power)]
    n_requests = [math.ceil(walked[place]) for place in places]
    n_labels = [int(steps[place]) for place in places]
    means = math.ceil(float(walked @ chances)), math.ceil(float(steps @ chances))
    plan = _as_plan(means, n_requests, n_labels, power=power, price_per_label=price_per_label)
    return plan, float(chances[steps <= labels[-1]].sum())


def best_of_two(
    accuracy: float,
    drop: float,
    alpha: float = 0.05,
    *,
    floor: float = best_arm.FLOOR,
    power: float = 0.8,
    label_share: float = 1.0,
    centre: float = 0.8,
    price_per_label: float | None = None,
) -> Plan:
    """A bandit release of one candidate, until `stats.best_arm` names the better of the two, at 1 / alpha.

    Simulated with a fixed seed, so right to about a tenth: the shares follow what the labels say by chance.

    Args:
        accuracy, drop, centre: as in `unpaired`; so are the errors.
        floor: the least share of an arm.
    """
    _check(drop, accuracy if drop > 0 else 1 - accuracy, alpha=alpha, power=power, label_share=label_share)
    rng, right = np.random.default_rng(_SEED), np.array([accuracy, accuracy - drop])
    running, n_labels, total = np.arange(_N_RUNS), np.zeros(_N_RUNS), 0
    n: NDArray[np.int_] = np.zeros((_N_RUNS, 2), int)
    n_right, is_out = n.copy(), n > 0
    capitals: Floats = np.zeros((_N_RUNS, 2, 2, 1))
    while len(running):
        n_more = max(_N_BETWEEN, math.ceil(_GROWTH * total))
        total += n_more
        if total > _MOST:
            raise ValueError(f"so small a difference takes more than {_MOST:g} answers to find")
        shares = best_arm.allocation(n, n_right, floor=floor, is_out=is_out)
        met = rng.multinomial(n_more, shares)
        got = rng.binomial(met, right)
        n, n_right = n + met, n_right + got
        capitals = capitals + best_arm.duels(met, got, shares, centre=centre)
        n_labels[running] = total
        going = (best_arm.log_e_not_best(capitals) < math.log(1 / alpha)).all(axis=1)
        running, n, n_right, is_out = running[going], n[going], n_right[going], is_out[going]
        capitals = capitals[going]
    labels = [math.ceil(np.quantile(n_labels, level)) for level in (0.5, 0.9, power)]
    means = math.ceil(n_labels.mean() / label_share), math.ceil(n_labels.mean())
    requests = [math.ceil(k / label_share) for k in labels]
    return _as_plan(means, requests, labels, power=power, price_per_label=price_per_label)


def no_worse(
    disagreement_share: float,
    margin: float,
    alpha: float = 0.05,
    *,
    gain: float = 0.0,
    share: float = 1.0,
    power: float = 0.8,
    both_wrong_share: float = 0.0,
    price_per_label: float | None = None,
) -> Plan:
    """A shadow release until `stats.noninferiority` shows the candidate not to be worse by `margin`, at 1 / alpha.

    Args:
        margin: accuracy that may be lost, in shares of 1.
        gain: accuracy of the candidate minus that of the control, in truth.
        share: of the disagreements, that reviewers are asked about by a coin.

    Raises:
        ValueError: a candidate that is worse by the margin, or a gain that so few disagreements cannot make.
    """
    telling = disagreement_share * (1 - both_wrong_share)
    _check(gain + margin, 1.0, alpha=alpha, power=power, label_share=1.0)
    if abs(gain) > telling or gain + margin <= 0:
        raise ValueError(f"a gain of {gain:g} on {telling:g} of the requests cannot be shown to be above -{margin:g}")
    if telling:
        won = np.outer([margin + 1 / share, margin - 1 / share, margin], noninferiority.BETS / (1 / share - margin))
        asked = np.array([(telling + gain) / 2, (telling - gain) / 2]) * share
        chances_of = np.array([*asked, 1 - asked.sum()])
        drift, slopes, drifts = _as_walk(chances_of, np.log1p(won))
        threshold = math.log(1 / alpha)
        steps, chances = _first_passage(drift, lambda n: _place_needed(n, slopes, drifts, _log_mean, threshold))
    else:
        steps, chances = np.array([float(noninferiority.n_needed(margin=margin, alpha=alpha, share=share))]), np.ones(1)
    return _plan(
        steps,
        chances,
        labels_per_step=disagreement_share * share,
        request_share=1.0,
        power=power,
        price_per_label=price_per_label,
    )


def _log_mean(logs: Floats) -> Floats:
    """Logarithm of the mean (..., S) to (...)."""
    top = logs.max(axis=-1, keepdims=True)
    value: Floats = top[..., 0] + np.log(np.exp(logs - top).mean(axis=-1))
    return value


def _check(drop: float, most: float, *, alpha: float, power: float, label_share: float) -> None:
    if drop == 0:
        raise ValueError("versions that are equally good are never told apart: name a drop other than 0")
    if abs(drop) > most:
        raise ValueError(f"a drop of {abs(drop):g} is more than the {most:g} that there is to lose")
    for name, share in (("alpha", alpha), ("power", power), ("label_share", label_share)):
        if not 0 < share <= 1 or (share == 1 and name != "label_share"):
            raise ValueError(f"{name} has to lie between 0 and 1: {share}")


def _lead_needed(n: Floats, threshold: float) -> Floats:
    """The lead of losses over wins (N,) with which E of `stats.evalues` reaches exp(threshold) after n (N,) of them.

    As it is smooth in n, it is found at the first and at some others of them and drawn through these.
    """
    if len(n) > _N_KNOTS:
        knots = np.unique(np.concatenate([n[:_N_KNOTS], np.geomspace(n[0], n[-1], _N_KNOTS)]))
        found = _lead_needed(knots[:_N_KNOTS], threshold), _lead_needed(knots[_N_KNOTS:], threshold)
        drawn: Floats = np.interp(np.log(n), np.log(knots), np.concatenate(found))
        return drawn
    low, high = n / 2, np.minimum(n, n / 2 + np.sqrt(n * (threshold + np.log(n) + 2)))
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        enough = _log_e(middle, n) >= threshold
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    lead: Floats = np.where(_log_e(n, n) >= threshold, 2 * high - n, np.inf)
    return lead


def _log_e(wins: Floats, n: Floats) -> Floats:
    """Log E (N,) of at least as many wins as losses, which need not be whole.

    E = 2^(n+1) B(wins + 1, losses + 1) P(p > 1/2), and for many of them p is normal.
    """
    few = np.minimum(n, _N_EXACT)
    exact = beta_mixture.log_es(np.minimum(wins, few), few, 0.5)
    whole = (n + 1) * math.log(2) + log_gamma(wins + 1) + log_gamma(n - wins + 1) - log_gamma(n + 2)
    normal = whole + np.log1p(-_erfc((2 * wins - n) / np.sqrt(2 * n)) / 2)
    value: Floats = np.where(n <= _N_EXACT, exact, normal)
    return value


def _as_walk(chances: Floats, logs: Floats) -> tuple[float, Floats, Floats]:
    """Bets as a walk: the mean of its steps, whose variance is 1, and what it makes of each stake (S,).

    The step is the logarithm that an answer adds to the capital of the fastest growing stake, in units of its spread.
    After n steps to a place y, the logarithm of a stake's capital is about slope * y + drift * n, by regression.

    Args:
        chances: of the outcomes that there are (N,).
        logs: what each adds to the logarithm of each stake's capital (N, S).
    """
    growth = chances @ logs
    spread = logs - growth
    fastest = int(growth.argmax())
    sd = math.sqrt(float(chances @ spread[:, fastest] ** 2))
    slopes: Floats = (chances * spread[:, fastest]) @ spread / sd
    drift = float(growth[fastest]) / sd
    return min(drift, _MOST_DRIFT), slopes, growth - slopes * drift


def _place_needed(
    n: Floats, slopes: Floats, drifts: Floats, log_e: Callable[[Floats], Floats], threshold: float
) -> Floats:
    """The place (N,) of the walk after n (N,) steps with which the capital of all stakes reaches exp(threshold)."""
    low, high = np.zeros_like(n), (threshold + 10 + n * max(0.0, -float(drifts.min()))) / slopes.max()
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        enough = log_e(middle[:, None] * slopes + n[:, None] * drifts) >= threshold
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    needed: Floats = high
    return needed


def _first_passage(drift: float, lead_needed: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
    """When a walk of steps +1 and -1 with mean `drift` first meets a boundary: steps (T,) and their chances (T,)."""
    tried = np.geomspace(1, 10, 8, endpoint=False)
    while not (enough := drift * tried >= lead_needed(tried)).any():
        tried = tried * 10
        if tried[0] > _MOST:
            raise ValueError(f"so small a difference takes more than {_MOST:g} answers to find")
    expected = float(tried[enough.argmax()])
    n_most = max(20.0, _TAIL * expected)
    coarse = max(1, math.ceil(math.sqrt(n_most / _N_STEPS)))
    n_steps = math.ceil(n_most / coarse**2)
    steps = coarse**2 * np.arange(1.0, n_steps + 1)
    # A walk of whole steps ends up to a step beyond the boundary, which is more where steps are longer.
    lead = lead_needed(steps) / coarse - (1 - 1 / coarse)
    chances = _absorbed((1 + coarse * drift) / 2, lead)
    return steps, chances / chances.sum()


def _absorbed(up: float, lead_needed: Floats) -> Floats:
    """Chance (T,) that a walk of steps +1 with chance `up`, else -1, first reaches the lead needed (T,) at each step.

    Paths are counted by their number of steps up, only those that matter: `start` and more.
    """
    alive, start, chances = np.ones(1), 0, np.zeros(len(lead_needed))
    for t, lead in enumerate(lead_needed, start=1):
        moved = np.zeros(len(alive) + 1)
        moved[:-1] = alive * (1 - up)
        moved[1:] += alive * up
        n_kept = len(moved) if math.isinf(lead) else max(0, math.ceil((t + lead) / 2 - 1e-9) - start)
        chances[t - 1] = moved[n_kept:].sum()
        alive = moved[:n_kept]
        n_lost = int(np.searchsorted(alive.cumsum(), 1e-15))
        alive, start = alive[n_lost:], start + n_lost
        if not len(alive):
            break
    return chances


def _plan(
    steps: Floats,
    chances: Floats,
    *,
    labels_per_step: float,
    request_share: float,
    power: float,
    price_per_label: float | None,
) -> Plan:
    levels = (0.5, 0.9, power)
    requests = [_until(steps, chances, request_share, level) for level in levels]
    if labels_per_step >= 1:
        labels = [_until(steps, chances, 1 / labels_per_step, level) for level in levels]
    else:
        labels = [math.ceil(labels_per_step * n) for n in requests]
    mean = float(steps @ chances)
    means = math.ceil(mean / request_share), math.ceil(mean * labels_per_step)
    return _as_plan(means, requests, labels, power=power, price_per_label=price_per_label)


def _as_plan(
    means: tuple[int, int],
    requests: Sequence[int],
    labels: Sequence[int],
    *,
    power: float,
    price_per_label: float | None,
) -> Plan:
    """
    Args:
        means: of requests and of labels.
        requests, labels: in half, in nine of ten and with chance `power` enough.
    """
    costs = [None if price_per_label is None else round(n * price_per_label, 2) for n in labels]
    return Plan(
        n_requests_mean=means[0],
        n_requests_median=requests[0],
        n_requests_p90=requests[1],
        n_labels_mean=means[1],
        n_labels_median=labels[0],
        n_labels_p90=labels[1],
        power=power,
        n_requests=requests[2],
        n_labels=labels[2],
        cost_median=costs[0],
        cost_p90=costs[1],
    )


def _until(steps: Floats, chances: Floats, share: float, level: float) -> int:
    """After how many trials, of which `share` are steps of the walk, it has met its boundary with chance `level`."""
    decided = np.concatenate([[0.0], chances.cumsum()])
    if share >= 1:
        return int(steps[min(int(np.searchsorted(decided[1:], level - 1e-12)), len(steps) - 1)])
    low, high = 0, 1
    while _decided_share(high, share, steps, decided) < level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = _decided_share(middle, share, steps, decided) >= level
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _decided_share(n_trials: int, share: float, steps: Floats, decided: Floats) -> float:
    """The mean of `decided` over the binomial number of steps within n trials."""
    middle, reach = n_trials * share, _SIGNIFICANT_SD * math.sqrt(n_trials * share * (1 - share)) + 10
    n_steps = np.arange(max(0, math.floor(middle - reach)), min(n_trials, math.ceil(middle + reach)) + 1)
    odds = share / (1 - share)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n_trials - n_steps[:-1]) / (n_steps[:-1] + 1) * odds))])
    chances = np.exp(logs - logs.max())
    reached = decided[np.searchsorted(steps, n_steps, side="right")]
    return float(chances @ reached / chances.sum())
