"""The business mentor: what an answer costs here and elsewhere, what labels buy, and whether training pays at all."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace import signing, valuing, vectors
from headrace.advising.case import Case, Report, silent
from headrace.advising.method import advise_method
from headrace.advising.sentences import Sentence, Verdict, advice, not_known, say
from headrace.config import AdviseTable
from headrace.errors import MissingExtra
from headrace.evaluate import baselines, comparison
from headrace.export import load as load_artifact
from headrace.records import Interval
from headrace.tasks import Outputs
from headrace.workspace import Workspace

NOISE_POINTS = 1.0
"""What two seeds of one method differ by in the benches, when they differ much: less than it is nothing gained."""
_N_TIMED_ROWS, _N_ROUNDS = 512, 8
_T = 2.365  # of Student's law with 7 degrees of freedom, 95 %
_HOURS_A_MONTH = 730
_MOST_SAID = 10


def advise_business(ws: Workspace, *, task: str | None = None, report: Report = silent) -> dict[str, Any]:
    """What 1,000 answers cost here and by the call, from how many on that pays, what labels buy, whether to train.

    Prices are those of `[advise]` in headrace.toml, in one currency.

    Returns:
        `{"task", "mentor", "sentences": [...]}`, what there is to do first; see headrace/advising/sentences.py.

    Raises:
        WrongState: nothing is labelled.
    """
    case = Case(ws, ws.task_name(task))
    report("speed", 0, 3)
    said = _costs(case)
    report("labels", 1, 3)
    said += labels(case, valuing.value(ws, task=case.task, report=report))
    report("zero-shot", 2, 3)
    said += _training(case, report)
    report("done", 3, 3)
    return advice(case.task, "business", said)


def _costs(case: Case) -> list[Sentence]:
    if case.control is None:
        command = case.command("train")
        return [not_known("cost", "No version is in charge whose answers could be timed.", command=command)]
    predictor, _ = load_artifact(signing.folder_of(case.ws, case.control, case.control.artifact))
    inputs = [row.input for row in case.sides.test[:_N_TIMED_ROWS]]
    predictor.logits(inputs)  # shapes that are new are compiled
    seconds = []
    for _ in range(_N_ROUNDS):
        started = time.perf_counter()
        predictor.logits(inputs)
        seconds.append((time.perf_counter() - started) / len(inputs))
    n_labels = len(case.sides.train) + len(case.sides.validation) + len(case.sides.test)
    return costs(case, seconds, n_labels, case.ws.settings.advise)


def costs(case: Case, row_seconds: Sequence[float], n_labels: int, prices: AdviseTable) -> list[Sentence]:
    """What answers cost on this machine beside a price for each call, and when that pays.

    Args:
        row_seconds: of one answer, from rounds of many.
    """
    command = case.command("advise business")
    mean, error = float(np.mean(row_seconds)), _T * float(np.std(row_seconds, ddof=1)) / math.sqrt(len(row_seconds))
    one_s = Interval(mean, max(0.0, mean - error), mean + error)
    here = _times(one_s, prices.machine_hour / 3600)
    facts = {"machine_hour": prices.machine_hour, "price_per_call": prices.price_per_call, "rows_per_s": 1 / mean}
    there = prices.price_per_call
    beside = f", and {1000 * there:g} by the call" if there else ""
    is_dear = bool(there) and here.low > there
    text = f"1,000 answers cost {{}} here when the machine is busy{beside}."
    said = [say("cost", "act" if is_dear else "fine", text, _times(here, 1000), unit="", command=command, **facts)]
    if not there:
        return said
    an_hour = prices.machine_hour / there
    used = _times(one_s, an_hour / 3600)
    text = (
        f"Kept running, the machine costs less than calls from {an_hour:,.0f} answers an hour on "
        f"({an_hour * _HOURS_A_MONTH:,.0f} a month), which is {{}} of what it can do."
    )
    pays: Verdict = "act" if used.low > 1 else "fine"
    said.append(say("break-even", pays, text, used, unit="share", command=command, answers_per_hour=an_hour))
    return said + _repaid(case, here, n_labels, prices)


def _repaid(case: Case, here: Interval, n_labels: int, prices: AdviseTable) -> list[Sentence]:
    """After how many answers the labels there are have paid."""
    command, paid = case.command("advise business"), n_labels * prices.label_price
    if here.high >= prices.price_per_call:
        return [not_known("repaid", "Answers here are not known to be cheaper than calls, so labels never pay so.",
                          command=command)]  # fmt: skip
    saved = [prices.price_per_call - one for one in (here.estimate, here.low, here.high)]
    after = Interval(*(paid / one for one in saved))
    text = f"{n_labels:,} labels at {prices.label_price:g} are repaid after {{}} that are not bought by the call."
    return [say("repaid", "fine", text, after, unit="answers", command=command, n_labels=n_labels, paid=paid)]


def _times(one: Interval, factor: float) -> Interval:
    return Interval(one.estimate * factor, one.low * factor, one.high * factor, one.level)


def labels(case: Case, values: Mapping[str, Any]) -> list[Sentence]:
    """Points for a unit of the currency, of labels of each channel; the most first."""
    command, price = case.command("value"), case.ws.settings.advise.label_price
    curves = [one for one in values["curves"] if one["channel"] is not None and "reason" not in one]
    if not curves or not price:
        why = "labels cost nothing" if curves else "no channel has a learning curve yet"
        return [not_known("labels", f"What money buys in labels is not known: {why}.", command=command)]
    gains, harmful = {one["channel"]: case.gain_of(one) for one in curves}, valuing.harmful(values)
    curves.sort(key=lambda one: (one["channel"] in harmful, -gains[one["channel"]].estimate))
    said = []
    for place, one in enumerate(curves[:_MOST_SAID]):
        gain = _times(gains[one["channel"]], 1 / (one["n_more"] * price))
        is_best = place == 0 and gain.low > 0 and one["channel"] not in harmful
        text = f"One unit of your currency buys {{}} in {one['channel']}, in labels at {price:g}."
        said.append(
            say("labels", "act" if is_best else "fine", text, gain, unit="points", command=command,
                channel=one["channel"], label_price=price)
        )  # fmt: skip
    return said


def _training(case: Case, report: Report) -> list[Sentence]:
    """Whether what needs no training does as well: beside the version in charge, or beside what all labels give."""
    try:
        if case.control is not None:
            return _beside_control(case, report)
        found = advise_method(case.ws, task=case.task, report=report)
    except MissingExtra as error:
        return [not_known("training", f"{error}.", command=case.command("advise method"))]
    measured = max(found["base_models"], key=lambda one: one["quality"])["measured"]
    return training_by_method(case, None if found["enough"] is None else found["enough"]["way"], measured)


def _beside_control(case: Case, report: Report) -> list[Sentence]:
    task_type, settings = case.task_type, case.ws.task(case.task)
    command = case.command("advise method")
    if task_type.problem not in ("single_label_classification", "retrieval"):
        return [not_known("training", "Without training, this task type has no answers to compare.", command=command)]
    entries = [settings.descriptions.get(label, label) for label in task_type.output_names]
    found = vectors.of_inputs(case.ws, [*(row.input for row in case.test), *entries], task=case.task, report=report)
    untrained: Outputs = baselines.zero_shot(task_type, found[: len(case.test)], found[len(case.test) :])
    asked = case.asked(case.test)
    gain = comparison.compare(task_type, case.test, untrained, asked.outputs, calibration_b=asked.calibration)
    return training(case, gain["overall"]["difference"])


def training(case: Case, difference: Mapping[str, Any]) -> list[Sentence]:
    """Whether training is worth it, by what the version in charge gains over zero-shot answers to the same rows."""
    assert case.control is not None
    command = case.command("advise business --json")
    if difference["estimate"] is None:
        return [not_known("training", f"Whether training pays is not known: {difference['reason']}.", command=command)]
    points = [100 * difference[key] for key in ("estimate", "low", "high")]
    gain = Interval(points[0], points[1], points[2], difference["level"])
    name, metric = case.control.name, case.task_type.main_metric
    if gain.high < NOISE_POINTS or (gain.low <= 0 and gain.estimate < NOISE_POINTS):
        text = f"Do not fine-tune: zero-shot is within the noise, {name} gains {{}} of {metric} over it."
        return [say("training", "act", text, gain, unit="points", command=command)]
    if gain.low <= 0:
        text = (
            f"Test rows cannot tell whether training pays: {name} gains {{}} of {metric} over zero-shot; import more."
        )
        return [say("training", "not known", text, gain, unit="points", command=command)]
    text = f"Training pays: {name} gains {{}} of {metric} over zero-shot answers."
    return [say("training", "fine", text, gain, unit="points", command=command)]


def training_by_method(case: Case, enough: str | None, measured: Mapping[str, Mapping[str, Any]]) -> list[Sentence]:
    """The same before there is a version: beside what all labels give to the frozen base model, on validation rows."""
    command, metric = case.command("advise method"), case.task_type.main_metric
    known = [measured[way] for way in ("frozen", "probe") if way in measured and measured[way]["low"] is not None]
    best = max(known, key=lambda one: float(one["estimate"]), default=None)
    if best is None:
        return [not_known("training", "Without training, this task type has no answers to compare.", command=command)]
    if enough is not None:
        simple = measured[enough]
        ends = Interval(simple["estimate"], simple["low"], simple["high"], simple["level"])
        text = (
            f"Do not fine-tune yet: {enough} gives {metric} {{}}, within the noise of the {best['estimate']:.2f} that "
            "all labels give on the frozen base model."
        )
        return [say("training", "act", text, ends, unit="", command=command, way=enough)]
    ends = Interval(best["estimate"], best["low"], best["high"], best["level"])
    guessed = measured.get("majority", {}).get("estimate")
    if guessed is not None and best["low"] <= guessed:
        text = (
            f"Validation rows cannot tell whether labels are worth using: on the frozen base model they give {metric} "
            f"{{}}, answers that ignore the text {guessed:.2f}; import more."
        )
        return [say("training", "not known", text, ends, unit="", command=command)]
    text = f"Labels are worth using: on the frozen base model alone they give {metric} {{}}; a version would tell more."
    return [say("training", "fine", text, ends, unit="", command=command)]
