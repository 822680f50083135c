"""The technical mentor: where to label, which method, whether labels or the model stand in the way, what int8 costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import signing, valuing
from headrace.advising.case import N_ASKED, Case, Report, share_of, silent, spread
from headrace.advising.method import advise_method
from headrace.advising.sentences import Sentence, Verdict, advice, not_known, say
from headrace.errors import MissingExtra
from headrace.evaluate import classes
from headrace.export import checkpoint
from headrace.export import load as load_artifact
from headrace.records import Interval
from headrace.stats import label_errors, linear_probe, paired
from headrace.stats.audits import difference
from headrace.stats.valuation import paired_shares
from headrace.store import runs
from headrace.valuing import sources
from headrace.workspace import Workspace

ALPHA = 0.05
_WORTH_POINTS = 0.1  # of 100 labels, that are worth a word
_MOST_SAID = 10
_LEAST_PROBED = 20
_N_PROBED = 4_000  # rows whose labels are looked at
_LEAST_SHARE = 0.01  # of all answers, from which something stands in the way


def advise_technical(
    ws: Workspace, *, task: str | None = None, tries_methods: bool = True, report: Report = silent
) -> dict[str, Any]:
    """Where more labels would help, which method suits, whether it is label noise or capacity, and what int8 costs.

    Args:
        tries_methods: whether to measure which method suits, which takes half a minute.

    Returns:
        `{"task", "mentor", "sentences": [...]}`, what there is to do first; see headrace/advising/sentences.py.

    Raises:
        WrongState: nothing is labelled.
    """
    case = Case(ws, ws.task_name(task))
    values = valuing.value(ws, task=case.task, report=report)
    said = more_labels(case, values)
    if tries_methods:
        said += _method(case, report)
    report("labels", 0, 1)
    said += _in_the_way(case, values, report)
    report("int8", 0, 1)
    said += _precision(case)
    return advice(case.task, "technical", said)


def more_labels(case: Case, values: Mapping[str, Any]) -> list[Sentence]:
    """A sentence for each channel whose learning curve could be had, the most gain first."""
    command = case.command("value")
    if values["inconclusive"]:
        return [not_known("more-labels", f"No learning curve: {values['inconclusive']}.", command=command)]
    curves = [one for one in values["curves"] if one["channel"] is not None and "reason" not in one]
    if not curves:
        return [not_known("more-labels", "No channel has rows enough for a learning curve yet.", command=command)]
    gains, harmful = {one["channel"]: case.gain_of(one) for one in curves}, valuing.harmful(values)
    curves.sort(key=lambda one: (one["channel"] in harmful, -gains[one["channel"]].estimate))
    said = []
    for place, one in enumerate(curves[:_MOST_SAID]):
        gain, is_trusted = gains[one["channel"]], one["channel"] not in harmful
        is_worth = gain.low > 0 and gain.estimate >= _WORTH_POINTS and is_trusted
        first = "Label here first: " if place == 0 and is_worth else ""
        rest = "" if is_trusted else "; but look at those it has first, as they harm"
        text = f"{first}{one['n_more']} more labels of {one['channel']} should answer {{}} more of its texts rightly"
        verdict: Verdict = "act" if first else "fine"
        facts = {"channel": one["channel"], "n_rows": one["n_rows"]}
        said.append(say("more-labels", verdict, f"{text}{rest}.", gain, unit="points", command=command, **facts))
    return said


def _method(case: Case, report: Report) -> list[Sentence]:
    try:
        found = advise_method(case.ws, task=case.task, report=report)
    except MissingExtra as error:
        return [not_known("method", f"{error}.", command=case.command("advise method"))]
    return method(case, found)


def method(case: Case, found: Mapping[str, Any]) -> list[Sentence]:
    """Which method to take, by what `advise_method` found."""
    choice, command = found["choice"], case.command("advise method")
    if choice is None:
        return [not_known("method", f"No method is chosen: {found['reasons'][-1]}.", command=command)]
    minutes = choice["seconds"] / 60
    measured = next(one["measured"] for one in found["base_models"] if one["base_model"] == choice["base_model"])
    best = max((one for one in measured.values() if one["estimate"] is not None), default=None, key=_estimate)
    head = f"Fine-tune with {choice['method']} on {choice['base_model']}: about {minutes:.1f} minutes here"
    facts = {
        "method": choice["method"],
        "base_model": choice["base_model"],
        "run": choice["run"],
    }
    if best is None or best["low"] is None:
        return [not_known("method", f"{head}; what it has to beat is not known.", command=command)]
    ends = Interval(best["estimate"], best["low"], best["high"])
    text = f"{head}. Without training, your rows give {found['facts']['main_metric']} {{}}, which it has to beat."
    verdict: Verdict = "act" if case.control is None else "fine"
    return [say("method", verdict, text, ends, unit="", command=command, **facts)]


def _estimate(one: Mapping[str, Any]) -> float:
    found: float = one["estimate"]
    return found


def _in_the_way(case: Case, values: Mapping[str, Any], report: Report) -> list[Sentence]:
    command = case.command("advise technical --json")
    if values["inconclusive"]:
        return [not_known("label-noise", f"Suspected labels are not known: {values['inconclusive']}.", command=command)]
    given = sources.material(case.ws, case.sides, report)
    step = max(1, len(given.train.targets) // _N_PROBED)
    vectors, labels = given.train.vectors[::step], given.train.targets[::step]
    same = np.unique(vectors, axis=0, return_inverse=True)[1].reshape(-1)  # of one text, which keeps to one fold
    if same.max(initial=0) < _LEAST_PROBED:
        return [not_known("label-noise", "Too few rows to tell wrong labels from right ones.", command=command)]
    probs = linear_probe.out_of_fold(vectors, labels, given.n_classes, seed=0, groups=same)
    is_suspect = np.zeros(len(labels), dtype=bool)
    is_suspect[label_errors.suspects(probs, labels).rows] = True
    if case.control is None:
        weights = linear_probe.fit(vectors, labels, given.n_classes)
        on_train = _answers(weights, vectors) != labels
        on_test = _answers(weights, given.held_out.vectors) != given.held_out.targets
        who = "logistic regression on frozen vectors"
    else:
        train = spread(case.sides.train, N_ASKED)
        on_train, on_test, who = ~case.right(train, case.answers(train)), ~case.test_right, case.control.name
    return in_the_way(case, is_suspect, on_train, on_test, values["curves"][0], who=who)


def _answers(weights: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = linear_probe.log_probs(weights, vectors).argmax(axis=1)
    return found


def in_the_way(
    case: Case,
    is_suspect: NDArray[np.bool_],
    on_train: NDArray[np.bool_],
    on_test: NDArray[np.bool_],
    curve: Mapping[str, Any],
    *,
    who: str,
) -> list[Sentence]:
    """Label noise, too few rows, or a model that is too small: of what there is most, that is what to do about.

    Args:
        is_suspect: training rows whose label is likely wrong.
        on_train, on_test: rows that `who` answers wrongly.
        curve: of all rows together; its floor is what no number of rows would mend, on frozen vectors.
    """
    noise, train, test = share_of(is_suspect), share_of(on_train), share_of(on_test)
    gap = difference(train, test)
    rest = difference(noise, train)
    shares = {"label-noise": noise, "too-few-rows": gap, "capacity": rest}
    most = max(shares, key=lambda name: shares[name].estimate)
    is_much = shares[most].low > _LEAST_SHARE and shares[most].estimate > test.estimate / 4
    floor = ""
    if "floor" in curve:
        found = curve["floor"]
        floor = f" No number of rows would bring frozen vectors below {100 * found['estimate']:.1f} % wrong"
        floor += f" [{100 * found['low']:.1f}, {100 * found['high']:.1f}]."
    texts = {
        "label-noise": ("Of the training labels, {} are likely wrong, or narrow cases", "ask people about them"),
        "too-few-rows": (
            f"{who} answers {{}} more of the test than of the training rows wrongly",
            "more rows mend that",
        ),
        "capacity": (
            f"{who} answers {{}} more of the training rows wrongly than have suspect labels",
            "a larger base model or more epochs may mend that",
        ),
    }
    commands = {
        "label-noise": case.command("advise technical --json"),
        "too-few-rows": case.command("value"),
        "capacity": case.command("advise method"),
    }
    wrong = {"wrong_share": test.estimate, "wrong_on_train_share": train.estimate, "n": len(on_test)}
    said = []
    for name, share in shares.items():
        (what, remedy), is_it = texts[name], is_much and name == most
        text = (f"{what}; {remedy}." if is_it else f"{what}.") + (floor if name == "too-few-rows" else "")
        verdict: Verdict = "act" if is_it else "fine"
        said.append(say(name, verdict, text, share, unit="share", command=commands[name], **wrong))
    return said


def _precision(case: Case) -> list[Sentence]:
    """What a served precision below fp32 costs each class, on validation and test rows."""
    if case.control is None:
        return []
    with case.ws.store.read() as conn:
        artifact = runs.find_artifact(conn, case.control.artifact)
    if artifact is None or artifact.facts.get("precision") in (None, "fp32"):
        return []
    command = case.command("advise technical --json")
    predictor, facts = load_artifact(signing.folder_of(case.ws, case.control, case.control.artifact))
    try:
        exact = checkpoint.load(case.ws.artifacts.get(case.control.checkpoint), facts.task)
    except MissingExtra as error:
        return [not_known("precision", f"{error}.", command=command)]
    rows = spread([*case.sides.validation, *case.sides.test], N_ASKED)
    inputs = [row.input for row in rows]
    counts = classes.compare(
        case.task_type,
        rows,
        exact.logits(inputs),
        predictor.logits(inputs),
        calibration_a=facts.calibration,
        calibration_b=facts.calibration,
    )["overall"]
    return precision(case, counts, len(rows), str(artifact.facts["precision"]))


def precision(case: Case, counts: Mapping[str, Mapping[str, int]], n_rows: int, name: str) -> list[Sentence]:
    """The classes that a precision hurts, or that it hurts none.

    Args:
        counts: of each class on which it answers otherwise than fp32, rows that speak about it, won and lost.
    """
    command = case.command("advise technical --json")
    chances = paired.holm({label: paired.mcnemar(c["losses"], c["wins"]) for label, c in counts.items()})
    lost = {label: _lost(c["n"], c["wins"], c["losses"]) for label, c in counts.items()}
    hurt = sorted((label for label, p in chances.items() if p < ALPHA), key=lambda label: -lost[label].estimate)
    if hurt:
        text = f"{name} costs class %s {{}} of the rows about it, beside fp32; serve it in fp32, or train it again."
        return [
            say("precision", "act", text.replace("%s", label), lost[label], unit="points", command=command, label=label)
            for label in hurt
        ]
    most = max(lost.values(), key=lambda one: one.estimate, default=_lost(n_rows, 0, 0))
    return [say("precision", "fine", f"{name} hurts no class: the most is {{}}.", most, unit="points", command=command)]


def _lost(n: int, n_won: int, n_lost: int) -> Interval:
    """Points that are lost, of n rows of which so many are won and lost."""
    exact = np.arange(n) < n_lost
    rounded = (np.arange(n) >= n_lost) & (np.arange(n) < n_lost + n_won)
    found = paired_shares(exact, rounded)
    return Interval(100 * found.estimate, 100 * found.low, 100 * found.high, found.level)
