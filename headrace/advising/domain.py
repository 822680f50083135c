"""The domain mentor: what of a checklist can be computed. Personal data, imbalance, drift, groups, doubt, scope."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import vectors
from headrace.advising.case import Case, Report, share_of, silent, spread
from headrace.advising.sentences import Sentence, Verdict, advice, not_known, say
from headrace.errors import BadConfig, MissingExtra
from headrace.feedback import drift
from headrace.feedback.alarms import Alarm
from headrace.personal import finding
from headrace.records import Interval, SnapshotRow
from headrace.stats import abstention
from headrace.stats.audits import difference
from headrace.store import predictions
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

ALPHA = 0.05
_N_SCANNED = 50_000  # rows that are looked through for personal data: seconds
_N_NAMED = 20  # ids of rows that an answer holds
_RARE = 0.25  # of an even share: a class below it is rare
_N_LOGGED = 2_000
_FAR_QUANTILE = 0.99
_N_TRAIN = 10_000
_LEAST_GROUP = 20
_MARGIN_POINTS = 5.0  # a group that is surely less than so much worse is fine


def advise_domain(ws: Workspace, *, task: str | None = None, report: Report = silent) -> dict[str, Any]:
    """Personal data that was left in, imbalance, drift, groups, a threshold for a wanted error share, and scope.

    Returns:
        `{"task", "mentor", "sentences": [...]}`, what there is to do first; see headrace/advising/sentences.py.

    Raises:
        WrongState: nothing is labelled.
        BadConfig: a group of `advise.groups` is no channel and no regular expression.
    """
    case = Case(ws, ws.task_name(task))
    rows = [*case.sides.train, *case.sides.validation, *case.sides.test]
    checks: list[Callable[[], list[Sentence]]] = [
        lambda: personal_data(case, rows),
        lambda: imbalance(case),
        lambda: drift_of(case, drift.open_alarms(ws, case.task), n_watched(drift.standing(ws, case.task))),
        lambda: _groups(case),
        lambda: _doubt(case),
        lambda: _scope(case, report),
    ]
    said: list[Sentence] = []
    for place, check in enumerate(checks):
        report("check", place, len(checks))
        said += check()
    report("check", len(checks), len(checks))
    return advice(case.task, "domain", said)


def personal_data(case: Case, rows: Sequence[SnapshotRow]) -> list[Sentence]:
    """Of each kind, the share of labelled rows with it; and one sentence where none has any."""
    command = case.command("advise domain --json")
    looked = spread(rows, _N_SCANNED)
    holders: dict[str, list[SnapshotRow]] = {}
    for row in looked:
        for kind in {found.kind for found in finding.find(as_one_text(row.input))}:
            holders.setdefault(kind, []).append(row)
    said = []
    for kind in finding.KINDS:
        mine = holders.get(kind, [])
        if mine:
            share = share_of(np.arange(len(looked)) < len(mine))
            text = f"{len(mine)} of {len(looked)} labelled rows hold something of the kind {kind}: {{}}. Take it out."
            facts = {"kind": kind, "channels": dict(Counter(row.channel for row in mine))}
            ids = [row.example_id for row in mine[:_N_NAMED]]
            said.append(say("personal-data", "act", text, share, unit="share", command=command, examples=ids, **facts))
    if said:
        return said
    kinds = ", ".join(finding.KINDS)
    text = f"No labelled row of {len(looked)} was found to hold personal data ({kinds}): {{}}."
    share = share_of(np.zeros(len(looked)))
    return [say("personal-data", "fine", text, share, unit="share", command=command)]


def imbalance(case: Case) -> list[Sentence]:
    """Classes with far fewer training rows than an even share; or that there is none."""
    if case.task_type.problem in ("regression", "question_answering", "retrieval"):  # no classes, or a whole catalogue
        return []
    command = case.command("advise domain --json")
    names = case.task_type.output_names
    targets = [row.target for row in case.sides.train]
    counts = Counter(name for target in targets for name in _names_in(target))
    if case.task_type.problem == "token_classification":
        names = sorted(counts)
    shares = {name: share_of(np.arange(len(targets)) < counts[name]) for name in names}
    even = sum(share.estimate for share in shares.values()) / max(1, len(shares))
    rare = sorted((name for name in names if shares[name].high < _RARE * even), key=lambda name: counts[name])
    if rare:
        text = "Class %s has {} of the training rows, below a quarter of an even share; label more of it."
        return [
            say("imbalance", "act", text.replace("%s", name), shares[name], unit="share", command=command, label=name,
                n_rows=counts[name])
            for name in rare[:_N_NAMED]
        ]  # fmt: skip
    if not shares:
        return []
    least = min(shares, key=lambda name: shares[name].estimate)
    text = f"The classes are balanced well enough: the rarest, {least}, has {{}} of the training rows."
    return [say("imbalance", "fine", text, shares[least], unit="share", command=command, label=least)]


def _names_in(target: Any) -> set[str]:
    """The classes that a target names: itself, several, or those of its spans."""
    if isinstance(target, str):
        return {target}
    return {part if isinstance(part, str) else part[2] for part in target}


def n_watched(standing: Mapping[str, Any]) -> int:
    """Streams that have their reference, of how drift stands: from then on they can give an alarm."""
    return sum(stream["is_watched"] for one in standing["watched"] for stream in one["streams"].values())


def drift_of(case: Case, alarms: Sequence[Alarm], n_streams: int) -> list[Sentence]:
    """What alarms that are open say; where there is none, whether there could be one.

    Args:
        n_streams: that are watched.
    """
    command = case.command("drift")
    if not alarms and not n_streams:
        why = "No stream of answers is watched for drift yet: there were too few answers, or none by who is in charge."
        return [not_known("drift", why, command=command)]
    if not alarms:
        text = f"No alarm of drift is open: {{}}, in {n_streams} streams that are watched."
        return [say("drift", "fine", text, _count(0), unit="alarms", command=command, n_streams=n_streams)]
    said = []
    for alarm in alarms:
        verdict: Verdict = "fine" if alarm.evidence["effect"]["accuracy"] == "not affected" else "act"
        changes, text, number, unit = alarm.evidence["changes"], f"Drift in {alarm.in_words}: {{}}.", _count(1), "alarm"
        if changes:
            now = changes[0]["now"]
            number, unit = Interval(now["estimate"], now["low"], now["high"], now["level"]), "share"
            text = f"Drift in {alarm.in_words}. {changes[0]['what']} now: {{}}."
        said.append(say("drift", verdict, text, number, unit=unit, command=command, alarm=alarm.id))
    return said


def _count(n: int) -> Interval:
    """A number that is exact."""
    return Interval(n, n, n, 1.0)


def _groups(case: Case) -> list[Sentence]:
    declared = case.ws.settings.advise.groups
    command = case.command("advise domain --json")
    if not declared:
        why = "No groups are declared, so nobody's accuracy is compared; set advise.groups in headrace.toml."
        return [not_known("fairness", why, command="headrace config show")]
    members = {name: members_of(case.sides.channels, name, rules) for name, rules in declared.items()}
    if case.control is None:
        return [not_known("fairness", "No version is in charge whose answers could be compared.", command=command)]
    places = {name: np.array([is_one(row) for row in case.test], dtype=bool) for name, is_one in members.items()}
    return fairness(case, places, case.test_right)


def members_of(channels: Sequence[str], name: str, rules: Sequence[str]) -> Callable[[SnapshotRow], bool]:
    """Whether a row is of a group.

    Raises:
        BadConfig: a rule is no channel and no regular expression.
    """
    tests: list[Callable[[SnapshotRow], bool]] = []
    for rule in rules:
        where, colon, pattern = rule.partition(":")
        if rule in channels:
            tests.append(lambda row, wanted=rule: row.channel == wanted)  # type: ignore[misc]
        elif colon and where in ("text", "key"):
            try:
                found = re.compile(pattern)
            except re.error as error:
                raise BadConfig(f"the group {name} has no regular expression: {error}", value=rule,
                                next_step=f"Correct advise.groups.{name}") from None  # fmt: skip
            tests.append(
                lambda row, of=where, like=found: bool(like.search(row.key if of == "key" else as_one_text(row.input)))  # type: ignore[misc]
            )
        else:
            raise BadConfig(
                f"the group {name} names no channel with labelled rows",
                value=rule,
                next_step=f"Known: {', '.join(channels)}; or write text:REGEX or key:REGEX",
            )
    return lambda row: any(test(row) for test in tests)


def fairness(case: Case, places: Mapping[str, NDArray[np.bool_]], right: NDArray[np.bool_]) -> list[Sentence]:
    """Of each group, how much less often its rows are answered rightly than all others; the level is divided by groups.

    Few rows cannot say that a group is fine: that takes an interval above -5 points.

    Args:
        places: which rows are of each group.
    """
    command = case.command("advise domain --json")
    said = []
    level = 1 - ALPHA / max(1, len(places))
    for name, mine in places.items():
        n_mine, n_others = int(mine.sum()), int((~mine).sum())
        if min(n_mine, n_others) < _LEAST_GROUP:
            why = f"Group {name}: {n_mine} test rows of it and {n_others} others are too few to compare."
            said.append(not_known("fairness", why, command=command))
            continue
        apart = difference(share_of(right[~mine], level=level), share_of(right[mine], level=level))
        points = Interval(100 * apart.estimate, 100 * apart.low, 100 * apart.high, level)
        verdict, how = _how_a_group_is(points)
        facts = {"group": name, "n": n_mine, "right_share": float(right[mine].mean())}
        text = f"Group {name} is answered {how}: {{}}."
        said.append(say("fairness", verdict, text, points, unit="points", command=command, **facts))
    return said


def _how_a_group_is(points: Interval) -> tuple[Verdict, str]:
    if points.high < 0:
        return "act", "worse than the others"
    if points.low > -_MARGIN_POINTS:
        return "fine", f"less than {_MARGIN_POINTS:g} points worse than the others"
    return "not known", "as well as the others or not, which its test rows are too few to tell"


def _doubt(case: Case) -> list[Sentence]:
    command = case.command("advise domain --json")
    if case.control is None:
        return [not_known("abstention", "No version is in charge whose confidence could be tested.", command=command)]
    confidences = [one.get("confidence") for one in case.test_answers]
    if None in confidences:
        why = "Answers of this task type have no one confidence, so there is no threshold for it."
        return [not_known("abstention", why, command=command)]
    return doubt(
        case, np.array(confidences, dtype=np.float64), case.test_right, case.ws.settings.advise.max_error_share
    )


def doubt(
    case: Case, confidences: NDArray[np.float64], right: NDArray[np.bool_], max_error_share: float
) -> list[Sentence]:
    """From which confidence on answers keep to a share of errors, and how many that are."""
    command = case.command("advise domain --json")
    found = abstention.threshold(confidences, right, max_wrong_share=max_error_share)
    wanted = f"{100 * max_error_share:g} %"
    if found is None:
        share = share_of(~right)
        text = f"No threshold of confidence is known to keep errors to {wanted}; of all answers {{}} are wrong."
        return [say("abstention", "act", text, share, unit="share", command=command, wrong_share=share.estimate)]
    facts = {"threshold": round(found.confidence, 6), "wrong_share": found.wrong.estimate, "max": max_error_share}
    if found.confidence == 0:
        text = f"All answers can be given: no more than {wanted} are wrong, {{}} on test rows."
        return [say("abstention", "fine", text, found.wrong, unit="share", command=command, **facts)]
    # rounded down to what answers show, so that the row at the threshold is still answered
    threshold = math.floor(found.confidence * 1e4) / 1e4
    text = f"To keep errors to {wanted}, answer from confidence {threshold:.4f} on: {{}} of the answers are left."
    return [say("abstention", "act", text, found.answered, unit="share", command=command, **facts)]


def _scope(case: Case, report: Report) -> list[Sentence]:
    command = case.command("advise domain --json")
    with case.ws.store.read() as conn:
        asked = predictions.newest_inputs(conn, case.task, limit=_N_LOGGED)
    if not asked:
        why = "Nothing that was asked is in the log with its text, so how much is out of scope is not known."
        return [not_known("scope", why, command="headrace serve")]
    train, test = spread(case.sides.train, _N_TRAIN), case.test
    try:
        found = vectors.of_inputs(
            case.ws, [*(row.input for row in (*train, *test)), *asked], task=case.task, report=report
        )
    except MissingExtra as error:
        return [not_known("scope", f"{error}.", command=command)]
    known, held_out, new = np.split(found, [len(train), len(train) + len(test)])
    return scope(case, nearest(known, held_out), nearest(known, new))


def nearest(known: NDArray[np.float32], asked: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine (N) of each of N unit vectors to the nearest known one."""
    parts = [(asked[i : i + 500] @ known.T).max(axis=1) for i in range(0, len(asked), 500)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def scope(case: Case, held_out: NDArray[np.float32], asked: NDArray[np.float32]) -> list[Sentence]:
    """How much of what was asked is farther from all training rows than all but a hundredth of the test rows are.

    Args:
        held_out, asked: cosine to the nearest training row.
    """
    command = case.command("advise domain --json")
    limit = float(np.quantile(held_out, 1 - _FAR_QUANTILE))
    share = share_of(asked < limit)
    is_much = share.low > 2 * (1 - _FAR_QUANTILE)
    facts = {"n_asked": len(asked), "cosine": limit}
    what = f"Of the last {len(asked)} texts asked, {{}} are farther from all training rows than 99 % of test rows are"
    if is_much:
        text = f"{what}: they are out of scope, or labels of their kind are missing."
        return [say("scope", "act", text, share, unit="share", command=command, **facts)]
    return [say("scope", "fine", f"{what}: about as many as one would expect.", share, unit="share", command=command,
                **facts)]  # fmt: skip
