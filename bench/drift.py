"""How long until a change is noticed, and how often is a change announced that is none?

False alarms: streams of classes, confidences and audited errors without any change, each with a reference that is a
sample of its own; all streams share one budget of one false alarm in 100,000 requests. Delays, on scikit-learn's
digits answered by logistic regression, whose held-out rows are drawn from as traffic: classes of which some come three
times as often, a class that is gone, pixels that are paler or noisy, which the model minds or not; and on audited
errors that rise from 8 %. Shown with each change is the verdict on accuracy that 1,500 audits after it give.

Run: python -m bench.drift [--runs 40]
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.stats import audits, drift, two_sample
from headrace.stats.intervals import wilson

N_REFERENCE = 4000
N_QUIET = 20_000
"""Requests of each stream of the false alarms."""
N_LONGEST = 1500
"""Requests after which a change counts as not found."""
N_BEFORE = 500
"""Requests without a change before it comes."""
AUDITED = 0.01
N_BLOCK, LOOK = 256, 5
MOST_LABELS = 5000
N_AUDITS = 1500


@dataclass(frozen=True)
class Requests:
    """What is seen of N requests: class and confidence of the answer, whether it is right, pixels (N, D)."""

    classes: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    vectors: NDArray[np.float64]

    def part(self, start: int, stop: int) -> "Requests":
        s = slice(start, stop)
        return Requests(self.classes[s], self.confidence[s], self.right[s], self.vectors[s])


@dataclass(frozen=True)
class Pool:
    """Held-out rows that traffic is drawn from: pixels (N, D), truth (N), and the model."""

    pixels: NDArray[np.float64]
    truth: NDArray[np.int64]
    model: Any

    def traffic(self, rng: np.random.Generator, n: int, change: Mapping[str, Any]) -> Requests:
        """Rows drawn by class `shares`; pixels, of 1 at most, times `scale`, and with `noise` of that deviation."""
        p = None
        if "shares" in change:
            p = (np.asarray(change["shares"]) / np.bincount(self.truth, minlength=10))[self.truth]
            p /= p.sum()
        rows = rng.choice(len(self.truth), size=n, p=p)
        pixels = self.pixels[rows] * change.get("scale", 1.0)
        pixels += change.get("noise", 0.0) * rng.normal(size=(n, self.pixels.shape[1]))
        probs = self.model.predict_proba(pixels)
        classes = probs.argmax(axis=1)
        return Requests(classes, probs.max(axis=1), classes == self.truth[rows], pixels)


def digits() -> Pool:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    x = x / 16  # the largest pixel is 1
    order = np.random.default_rng(0).permutation(len(y))
    train, rest = order[:600], order[600:]
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x[train], y[train])
    return Pool(x[rest], y[rest], model)


def quiet(n_streams: int, n_classes: int, seed: int) -> list[Measured]:
    """False alarms of many streams side by side, of every kind that needs no vectors."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_classes, 2.0))
    parts = np.diff([0.0, *drift.CUTS, 1.0]) * N_REFERENCE
    detectors = {
        "classes": drift.categories(rng.multinomial(N_REFERENCE, shares, size=n_streams)),
        "confidence": drift.categories(np.tile(parts, (n_streams, 1))),
    }
    # confidences are parts of a reference that is a sample: the true shares of these parts are spacings
    spacings = rng.dirichlet(parts, size=n_streams)
    truths = {"classes": np.broadcast_to(shares, (n_streams, n_classes)), "confidence": spacings}
    fired = {name: np.zeros(n_streams, dtype=bool) for name in detectors}
    n_seen, step = 0, 50
    for _ in range(0, N_QUIET, step):
        for name, detector in detectors.items():
            cumulative = truths[name].cumsum(axis=1)
            drawn = (rng.random((step, n_streams, 1)) > cumulative[None, :, :-1]).sum(axis=2)
            detectors[name] = detector.after(drawn)
            fired[name] |= detectors[name].log_evidence >= math.log(drift.ARL / drift.SHARES[name])
        n_seen += step
    rows = []
    for name, which in fired.items():
        n_requests, n_alarms = n_streams * n_seen, int(which.sum())
        rows.append(
            Measured(
                f"no change, {n_classes} classes: streams of {n_seen:,} requests with a false alarm, {name}",
                n_alarms / n_streams,
                "share",
                f"budget: {n_requests * drift.SHARES[name] / drift.ARL / n_streams:.3f}",
            )
        )
    return rows


def quiet_errors(n_streams: int, seed: int) -> Measured:
    rng, n_fired = np.random.default_rng(seed), 0
    for _ in range(n_streams):
        detector, fired = drift.errors(0.08), False
        for _ in range(0, 100_000, 5000):
            is_audited = rng.random(5000) < AUDITED
            detector = detector.after(is_audited, rng.random(5000) < 0.08, np.full(5000, AUDITED), AUDITED)
            fired |= bool(detector.log_evidence[0] >= math.log(drift.ARL / drift.SHARES["errors"]))
        n_fired += fired
    budget = f"budget: {drift.SHARES['errors']:.2f}"
    return Measured(
        "no change: streams of 100,000 requests with a false alarm, errors", n_fired / n_streams, "share", budget
    )


class Watch:
    """The panel of one task: detectors with one reference, and when each first spoke."""

    def __init__(self, reference: Requests) -> None:
        self.bins = drift.bins(reference.confidence)
        self.vectors = reference.vectors
        self.detectors: dict[str, drift.Detector] = {
            "classes": drift.categories(np.bincount(reference.classes, minlength=10)),
            "confidence": drift.categories(self.bins.counts(reference.confidence)),
            "embeddings": drift.Blocks(),
        }

    def see(self, seen: Requests) -> None:
        for name, values in (("classes", seen.classes), ("confidence", self.bins.of(seen.confidence))):
            detector = self.detectors[name]
            assert isinstance(detector, drift.Categories)
            self.detectors[name] = detector.after(values)

    def see_block(self, seen: Requests, seed: int) -> None:
        detector = self.detectors["embeddings"]
        assert isinstance(detector, drift.Blocks)
        evidence = two_sample.log_e(self.vectors, seen.vectors, seed=seed)
        self.detectors["embeddings"] = detector.after(evidence, len(seen.classes))


def delays(pool: Pool, rng: np.random.Generator, change: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    """Requests until each stream alarms, and the verdict on accuracy from audits after the change."""
    reference = pool.traffic(rng, N_REFERENCE, {})
    watch, found = Watch(reference), {}
    before, changed = pool.traffic(rng, N_BEFORE, {}), pool.traffic(rng, N_LONGEST, change)
    watch.see(before)
    watch.see_block(before.part(0, N_BLOCK), 0)
    for n in range(LOOK, N_LONGEST + 1, LOOK):
        watch.see(changed.part(n - LOOK, n))
        if n % N_BLOCK < LOOK and n >= N_BLOCK:
            stop = n - n % N_BLOCK
            watch.see_block(changed.part(stop - N_BLOCK, stop), n)
        for name in drift.alarms(watch.detectors):
            found.setdefault(name, n)
        if len(found) == len(watch.detectors):
            break
    audited = audits.tally(np.ones(N_AUDITS), np.ones(N_AUDITS, dtype=bool), changed.right[:N_AUDITS])
    before = wilson(float(reference.right.sum()), N_REFERENCE)
    assert before is not None
    return found, drift.effect(audited, before).accuracy


def of_change(name: str, pool: Pool, n_runs: int, seed: int, change: Mapping[str, Any], target: str) -> list[Measured]:
    rng = np.random.default_rng(seed)
    parts = [delays(pool, rng, change) for _ in range(n_runs)]
    accuracy = float(pool.traffic(rng, 20_000, change).right.mean())
    rows = [Measured(f"{name}: accuracy of the answers", accuracy, "")]
    firsts = [min(found.values(), default=N_LONGEST) for found, _ in parts]
    rows.append(_delay(f"{name}: requests until the first alarm", firsts, target))
    for stream in ("classes", "confidence", "embeddings"):
        rows.append(_delay(f"{name}: requests until the alarm, {stream}", [f.get(stream, N_LONGEST) for f, _ in parts]))
    for verdict in ("affected", "not affected"):
        share = float(np.mean([said == verdict for _, said in parts]))
        rows.append(Measured(f'{name}: "accuracy {verdict}" after {N_AUDITS:,} audits', share, "share"))
    return rows


def _delay(what: str, values: Sequence[float], beside: str | None = None) -> Measured:
    """The median, with the 5th and the 95th percentile."""
    low, middle, high = (float(v) for v in np.percentile(values, [5, 50, 95]))
    return Measured(what, middle, "requests", beside, low=low, high=high)


def more_errors(n_runs: int, seed: int, after: float) -> Measured:
    """Audited labels until the alarm, when errors rise from 8 % after 30,000 requests."""
    rng, found = np.random.default_rng(seed), []

    def seen(detector: drift.Errors, share: float, n: int) -> tuple[drift.Errors, int]:
        is_audited = rng.random(n) < AUDITED
        later = detector.after(is_audited, rng.random(n) < share, np.full(n, AUDITED), AUDITED)
        return later, int(is_audited.sum())

    for _ in range(n_runs):
        detector, _ = seen(drift.errors(0.08), 0.08, 30_000)
        n_labels = 0
        while n_labels < MOST_LABELS and not drift.alarms({"errors": detector}):
            detector, n = seen(detector, after, 500)
            n_labels += n
        found.append(n_labels)
    low, middle, high = (float(v) for v in np.percentile(found, [5, 50, 95]))
    what, target = f"errors from 8 to {after:.0%}: audited labels until the alarm", "target: 500"
    return Measured(what, middle, "labels", target if after == 0.12 else None, low=low, high=high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows: list[Measured] = []
    for n_classes in (3, 10, 77):
        rows += quiet(5 * given.runs, n_classes, given.seed)
    rows.append(quiet_errors(3 * given.runs, given.seed))
    pool = digits()
    even = np.bincount(pool.truth, minlength=10).astype(float)
    tripled, gone = even * np.repeat([3, 1], 5), even * np.r_[0, np.ones(9)]
    for name, change, target in (
        ("five classes three times as often", {"shares": tripled / tripled.sum()}, "target: 150"),
        ("a class is gone", {"shares": gone / gone.sum()}, "-"),
        ("paler pixels (.8)", {"scale": 0.8}, "inputs changed, accuracy not affected"),
        ("noise of .1", {"noise": 0.1}, "next to harmless"),
        ("noise of .3", {"noise": 0.3}, "target: 100"),
    ):
        rows += of_change(name, pool, given.runs, given.seed, change, target)
    rows += [more_errors(2 * given.runs, given.seed, after) for after in (0.10, 0.12, 0.16)]
    write("drift", rows, [given.seed])


if __name__ == "__main__":
    main()
