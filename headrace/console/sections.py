"""The parts of the report: each takes the facts of a task and returns markup, or None where there is nothing to say."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from headrace.console import figures
from headrace.console.facts import TaskFacts, interval_of
from headrace.console.live_section import live
from headrace.console.markup import Html, Part, element, join, table
from headrace.console.release_section import release
from headrace.console.trust_section import trusted
from headrace.console.value_section import of_sources
from headrace.records import Interval, LedgerEntry

_BASELINES = {
    "shared": "without adapters", "zero-shot": "nearest text of a label",
    "centroid": "nearest class centroid", "majority": "most frequent class",
}  # fmt: skip
_MOST_CLASSES = 20
_MOST_CHANNELS = 100
_METRICS = {
    "macro_f1": "macro-F1", "micro_f1": "micro-F1", "f1": "F1", "pearson": "Pearson's r", "mrr": "mean reciprocal rank",
    "ndcg_at_10": "nDCG at 10", "exact_match": "exact match",
}  # fmt: skip
_KINDS = {
    "start": "release started",
    "advance": "other shares",
    "promote": "put in charge",
    "hold": "held",
    "reject": "rejected",
    "rollback": "rolled back",
    "stop": "release stopped",
}


def task_page(facts: TaskFacts, prefix: str) -> Html:
    """All parts of one task. `prefix` keeps the ids of its figures apart from those of other tasks."""
    parts: list[Callable[[TaskFacts, str], Html | None]] = [
        headline, live, release, decision, by_channel, adapters, comparison, compressed, confusion, per_class,
        reliability, learning, trusted, of_sources, data, ledger,
    ]  # fmt: skip
    body = [part(facts, prefix) for part in parts]
    return element("section", element("h2", f"Task {facts.task}", id=prefix), *body)


def headline(facts: TaskFacts, _prefix: str) -> Html:
    tiles: list[Html] = []
    if facts.control is None:
        tiles.append(_tile("In charge", "nobody yet", "train a first version: headrace train"))
    else:
        since = next(e.at for e in reversed(facts.ledger) if e.kind in ("promote", "rollback") and e.channel is None)
        others = "".join(f"; {channel}: {version}" for channel, version in facts.own_controls.items())
        tiles.append(_tile("In charge", facts.control.name, f"since {_day(since)}{others}"))
        tiles += _score_tile(facts)
    if facts.release is not None:
        tried = facts.name_of(facts.release.candidate_id)
        what = "answers in the shadow" if facts.release.policy == "shadow" else f"is tried ({facts.release.policy})"
        tiles.append(_tile("Release", "open", f"{tried} {what} since {_day(facts.release.started_at)}"))
    if facts.snapshots:
        newest = facts.snapshots[-1]
        detail = f"{_number(newest.n_from_feedback)} of them from feedback"
        tiles.append(_tile("Rows in the newest snapshot", _number(newest.n_rows), detail))
    waiting = "become labels with the next improve"
    tiles.append(_tile("New corrections", _number(facts.n_new_corrections), waiting))
    lost = facts.n_corrections_without_text
    note = f"{_number(lost)} more cannot become labels, because serve.log_inputs kept no text of what was asked."
    return join(element("dl", *tiles), element("p", note) if lost else None)


def _score_tile(facts: TaskFacts) -> list[Html]:
    evaluation = facts.evaluation(facts.control)
    if evaluation is None:
        return []
    metric, overall = evaluation.results["main_metric"], evaluation.results["overall"]
    interval = interval_of(overall, metric)
    value = overall.get(metric) if interval is None else interval.estimate
    ends = "" if interval is None else f"95 % interval {interval.low:.3f} to {interval.high:.3f}, "
    shown = "none" if value is None else f"{value:.3f}"
    return [_tile(f"{_metric(metric)} of {facts.control_name}", shown, f"{ends}{_number(overall['n'])} held-out rows")]


def decision(facts: TaskFacts, prefix: str) -> Html | None:
    """The newest decision with evidence from traffic: of the open release, or else of the last one."""
    lines = [e for e in facts.ledger if e.kind in ("promote", "hold", "reject", "stop") and "overall" in e.evidence]
    if not lines:
        return None
    line, proof = lines[-1], lines[-1].evidence
    verdict = element(
        "p",
        element("b", f"{facts.name_of(line.version_id)}: {_KINDS[line.kind]}"),
        f" on {_moment(line.at)}. {line.reason}.",
        class_=f"verdict {line.kind}",
    )
    rows = {"overall": proof["overall"], **proof["channels"]}
    limits = proof["thresholds"]
    needed = {name: limits["harm" if name == "overall" else "harm_in_a_channel"] for name in rows}
    figure = figures.evidence(
        {name: (row["e_benefit"], row["e_harm"]) for name, row in rows.items()},
        thresholds=needed,
        name=f"{prefix}-evidence",
    )
    rule = "Overall, the bar that reaches its line decides"
    if proof.get("max_labels"):
        rule = f"Overall, an exact test of at most {_number(proof['max_labels'])} of these decides"
    caption = (
        "The evidence that the candidate is better or worse than the version in charge, from "
        f"{_number(proof['n_labelled'])} labelled answers among {_number(proof['n_requests'])} that both gave. "
        f"Only the {_number(proof['n_disagreements'])} where just one of them was right count. {rule}; "
        "in a channel, only the bar for worse does, by rejecting. Looking often does not "
        f"raise the chance of a wrong decision of either kind above {100 * proof['alpha']:g} %."
    )
    cells: list[list[Part]] = [
        [name, row["wins"], row["losses"], row["agreements"], _evidence(row["e_benefit"]), _evidence(row["e_harm"])]
        for name, row in rows.items()
    ]
    head: list[Part] = ["", "candidate right", "control right", "no difference", "better", "worse"]
    counts = table(head, cells, caption="Who was right where they differed, and the evidence", numbers=(1, 2, 3, 4, 5))
    return join(element("h3", "Candidate against control on live traffic"), verdict, _figure(figure, caption), counts)


def by_channel(facts: TaskFacts, prefix: str) -> Html | None:
    shown = facts.evaluation(facts.newest)
    if shown is None or facts.newest is None:
        return None
    metric = shown.results["main_metric"]
    series = {_role(facts, facts.newest.name): shown}
    beside = facts.beside_newest()
    if beside is not None:
        series[_role(facts, beside[0])] = beside[1]
    for predictor, label in _BASELINES.items():
        baseline = facts.evaluation(facts.newest, predictor)
        if baseline is not None:
            series[label] = baseline
    groups: dict[str, dict[str, Interval]] = {}
    for label, evaluation in series.items():
        for name, part in [("all rows", evaluation.results["overall"]), *evaluation.results["channels"].items()]:
            interval = interval_of(part, metric)
            if interval is not None:
                groups.setdefault(name, {})[label] = interval
    if not groups:
        return None
    figure = figures.bars(groups, metric=_metric(metric), name=f"{prefix}-channels")
    caption = f"{_metric(metric)} on held-out rows that no training saw; the thin line is the 95 % interval. "
    caption += _extremes(groups, next(iter(series)))
    return join(
        element("h3", f"{_metric(metric)} per channel"), _figure(figure, caption), _scores(groups, shown.results)
    )


def _role(facts: TaskFacts, name: str) -> str:
    return f"{name} (in charge)" if name == facts.control_name else name


def _extremes(groups: Mapping[str, Mapping[str, Interval]], label: str) -> str:
    found = {name: members[label] for name, members in groups.items() if label in members and name != "all rows"}
    if len(found) < 2:
        return ""
    best, worst = max(found, key=lambda n: found[n].estimate), min(found, key=lambda n: found[n].estimate)
    return f"{label} does best in {best}, {_with_ends(found[best])}, and worst in {worst}, {_with_ends(found[worst])}."


def _scores(groups: Mapping[str, Mapping[str, Interval]], results: Mapping[str, Any]) -> Html:
    series = list(dict.fromkeys(label for members in groups.values() for label in members))
    n_rows = {"all rows": results["overall"]["n"], **{name: part["n"] for name, part in results["channels"].items()}}
    rows: list[list[Part]] = [
        [name, _number(n_rows.get(name, 0)), *(_with_ends(members[s]) if s in members else "" for s in series)]
        for name, members in groups.items()
    ]
    return table(["", "rows", *series], rows, caption="The same in numbers, with 95 % intervals", numbers=(1,))


def comparison(facts: TaskFacts, prefix: str) -> Html | None:
    evaluation = facts.evaluation(facts.newest, "control")
    if evaluation is None:
        return None
    found = evaluation.results["comparison"]
    metric = evaluation.results["main_metric"]
    parts = {"all rows": found["overall"], **found["channels"]}
    rows = {name: _difference(part) for name, part in parts.items() if part["difference"]["estimate"] is not None}
    if "all rows" not in rows:
        return None
    figure = figures.differences(rows, metric=_metric(metric), name=f"{prefix}-comparison")
    overall = rows["all rows"]
    if overall.low > 0:
        words = "so it is better on these rows"
    elif overall.high < 0:
        words = "so it is worse on these rows"
    else:
        words = "so these rows cannot tell which is better"
    caption = (
        f"{facts.newest_name} minus {evaluation.results['control']}, on the same held-out rows: "
        f"{overall.estimate:+.3f} ({overall.low:+.3f} to {overall.high:+.3f}) overall, {words}."
    )
    return join(element("h3", "Against the version in charge then, before any traffic"), _figure(figure, caption))


def _difference(part: Mapping[str, Any]) -> Interval:
    found = part["difference"]
    return Interval(found["estimate"], found["low"], found["high"])


def adapters(facts: TaskFacts, _prefix: str) -> Html | None:
    """Which channels of the newest version answer by an adapter of their own, and on what evidence."""
    if not facts.adapters:
        return None
    n_kept = sum(one.is_kept for one in facts.adapters)
    note = (
        f"{_number(n_kept)} of {_number(len(facts.adapters))} channels of {facts.newest_name} answer by an adapter of "
        "their own, the others by the shared model. An adapter is kept where a one-sided paired test on the validation "
        "rows comes out after Holm's correction; the gain is on test rows, which had no say in that."
    )
    shown = sorted(facts.adapters, key=lambda one: not one.is_kept)[:_MOST_CHANNELS]
    rows: list[list[Part]] = []
    for one in shown:
        said = one.evidence
        counts = [said.get(key, "") for key in ("n", "n_won", "n_lost")]
        chance = "" if said["p_holm"] is None else f"{said['p_holm']:.2g}"
        gain = said.get("test", {}).get("difference", {})
        told = (
            "" if gain.get("estimate") is None else f"{gain['estimate']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        )
        rows.append([one.channel, "yes" if one.is_kept else "no", *counts, chance, told, said["reason"]])
    head: list[Part] = [
        "channel",
        "kept",
        "rows",
        "won",
        "lost",
        "p after Holm",
        f"gain in {_metric(facts.main_metric)}",
        "why",
    ]
    left_out = len(facts.adapters) - len(shown)
    more = element("p", f"{_number(left_out)} more channels are not shown.")
    whole = table(head, rows, caption="Adapters of channels", numbers=(2, 3, 4, 5, 6), wide=(7,))
    return join(element("h3", "Channels with an adapter"), element("p", note), whole, more if left_out else None)


def compressed(facts: TaskFacts, prefix: str) -> Html | None:
    """The newest compression that made a version: what each candidate lost on the test side, and gained."""
    known = [e for e in facts.evaluations if e.predictor == "uncompressed"]
    if not known:
        return None
    found = known[-1].results["compression"]
    shown = [one for one in found["candidates"] if one["points"]]
    test = {str(number): one["points"]["test"]["overall"] for number, one in enumerate(shown, start=1)}
    marks = {
        number: (one["speed_times"], Interval(test[number]["points"], test[number]["low"], test[number]["high"]))
        for number, one in zip(test, shown, strict=True)
        if test[number]["points"] is not None
    }
    metric, chosen = _metric(found["main_metric"]), found["chosen"]
    number_of_chosen = next(number for number, one in zip(test, shown, strict=True) if one["name"] == chosen)
    figure = figures.trade(marks, chosen=number_of_chosen, metric=metric, name=f"{prefix}-compressed")
    caption = (
        f"Candidates made of {found['compressed_from']}, exported; higher is better, further right is faster. "
        f"Lines are 95 % intervals on the test side. Chosen on the validation side: {chosen}, now {found['version']}."
    )
    rows: list[list[Part]] = [
        [
            number,
            one["name"],
            "not known" if test[number]["points"] is None else f"{test[number]['points']:+.2f}",
            f"{one['speed_times']:.2f}",
            f"{one['n_bytes'] / 1e6:.1f}",
            "chosen" if one["name"] == chosen else "within" if one["within"] else "",
        ]
        for number, one in zip(test, shown, strict=True)
    ]
    head: list[Part] = ["", "candidate", "points", "times as fast", "MB", f"budget of {found['max_drop']:g} points"]
    numbers = table(head, rows, caption="The same in numbers", numbers=(2, 3, 4))
    return join(element("h3", "Smaller versions"), _figure(figure, caption), numbers)


def confusion(facts: TaskFacts, prefix: str) -> Html | None:
    overall = _overall(facts)
    if "confusion" not in overall:
        return None
    labels, counts = overall["labels"], overall["confusion"]
    shown = _most_mixed_up(counts)
    figure = figures.confusion(
        [labels[i] for i in shown], [[counts[i][j] for j in shown] for i in shown], name=f"{prefix}-confusion"
    )
    total, right = sum(map(sum, counts)), sum(counts[i][i] for i in range(len(labels)))
    caption = (
        f"Rows are the truth, columns the answer of {facts.newest_name}. "
        f"{_number(right)} of {_number(total)} held-out rows were answered right."
    )
    mixed = max(((n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=(0, 0, 0))
    if len(shown) < len(labels):
        caption += f" Shown are the {len(shown)} of {len(labels)} classes with most mistakes."
    if mixed[0]:
        caption += f" The most frequent mistake: {labels[mixed[1]]} answered as {labels[mixed[2]]}, {_times(mixed[0])}."
    return join(element("h3", "What is taken for what"), _figure(figure, caption))


def _most_mixed_up(counts: list[list[int]]) -> list[int]:
    """The classes that a readable figure has room for, in their own order: those with most mistakes either way."""
    n_mistakes = [sum(row) + sum(line[i] for line in counts) - 2 * row[i] for i, row in enumerate(counts)]
    return sorted(sorted(range(len(counts)), key=lambda i: -n_mistakes[i])[:_MOST_CLASSES])


def per_class(facts: TaskFacts, _prefix: str) -> Html | None:
    classes = _overall(facts).get("per_class")
    if not classes:
        return None
    rows: list[list[Part]] = [
        [name, _number(c["n"]), *("none" if c[k] is None else f"{c[k]:.3f}" for k in ("precision", "recall", "f1"))]
        for name, c in classes.items()
    ]
    what = "rows" if "n_right" in next(iter(classes.values())) else "entities"
    caption = f"Per class, {facts.newest_name} on held-out rows"
    return table(["class", what, "precision", "recall", "F1"], rows, caption=caption, numbers=(1, 2, 3, 4))


def reliability(facts: TaskFacts, prefix: str) -> Html | None:
    overall = _overall(facts)
    if not overall.get("reliability"):
        return None
    figure = figures.reliability(overall["reliability"], name=f"{prefix}-reliability")
    caption = (
        "Dots on the dashed line: a confidence means what it says. Below it the model is too sure, above it not sure "
        f"enough; larger dots stand for more answers. On average confidence and truth are {100 * overall['ece']:.1f} "
        "points apart (expected calibration error)."
    )
    return join(element("h3", "Can its confidence be trusted?"), _figure(figure, caption))


def learning(facts: TaskFacts, prefix: str) -> Html | None:
    if facts.run is None or not facts.run.history:
        return None
    history = facts.run.history
    figure = figures.learning_curve(history, facts.main_metric, _metric(facts.main_metric), name=f"{prefix}-learning")
    steps = max(line.get("step", 0) for line in history)
    caption = f"Fine-tuning of {facts.run.base_model} by method {facts.run.method}, {_number(steps)} steps."
    measured = [line for line in history if isinstance(line.get("eval_loss"), int | float)]
    if measured:
        best = min(measured, key=lambda line: line["eval_loss"])
        caption += f" The loss on validation rows was lowest at step {_number(best['step'])} ({best['eval_loss']:.3f})."
    return join(element("h3", "Learning curve"), _figure(figure, caption))


def data(facts: TaskFacts, _prefix: str) -> Html:
    parts: list[Part] = [element("h3", "Data")]
    if not facts.imports and not facts.snapshots:
        text = "Nothing has been imported yet. Start with: headrace channel add, then headrace import."
        return join(*parts, element("p", text, class_="quiet"))
    if facts.imports:
        rows: list[list[Part]] = [
            [
                r["channel"],
                r["source"],
                *(_number(r[k]) for k in ("n_rows", "n_added", "n_known", "n_quarantined")),
                _reasons(r),
            ]
            for r in facts.imports
        ]
        head: list[Part] = ["channel", "source", "rows", "added", "known", "put aside", "why put aside"]
        parts.append(table(head, rows, caption="Imports", numbers=(2, 3, 4, 5), wide=(1, 6)))
    if facts.snapshots:
        rows = [
            [
                element("code", s.content_hash.removeprefix("sha256:")[:12]),
                _day(s.created_at),
                _number(s.n_rows),
                *(_number(s.n_by_side.get(side, 0)) for side in ("train", "validation", "test")),
                _number(s.n_from_feedback),
                ", ".join(f"{name} {_number(n)}" for name, n in s.n_by_channel.items()),
            ]
            for s in facts.snapshots
        ]
        head = ["snapshot", "frozen", "rows", "train", "validation", "test", "from feedback", "per channel"]
        parts.append(
            table(
                head, rows, caption="Snapshots: the rows that versions were made of", numbers=(2, 3, 4, 5, 6), wide=(7,)
            )
        )
    return join(*parts)


def ledger(facts: TaskFacts, _prefix: str) -> Html:
    title = element("h3", "Ledger")
    if not facts.ledger:
        return join(title, element("p", "No version has been put in charge, tried or refused yet.", class_="quiet"))
    rows: list[list[Part]] = [_ledger_row(facts, entry) for entry in reversed(facts.ledger)]
    caption = "Every decision about who answers, newest first. Lines are only ever added."
    head: list[Part] = ["", "when (UTC)", "version", "channel", "what", "why", "by"]
    return join(title, table(head, rows, caption=caption, wide=(5,)))


def _ledger_row(facts: TaskFacts, entry: LedgerEntry) -> list[Part]:
    return [
        str(entry.seq),
        _moment(entry.at),
        facts.name_of(entry.version_id),
        entry.channel or "all",
        _KINDS.get(entry.kind, entry.kind),
        entry.reason,
        entry.actor,
    ]


def _overall(facts: TaskFacts) -> dict[str, Any]:
    evaluation = facts.evaluation(facts.newest)
    return {} if evaluation is None else evaluation.results["overall"]


def _figure(figure: Html, caption: str) -> Html:
    return element("figure", figure, element("figcaption", caption))


def _tile(name: str, value: str, detail: str) -> Html:
    return element("div", element("dt", name), element("dd", element("b", value), element("span", detail)))


def _reasons(report: Mapping[str, Any]) -> str:
    return ", ".join(f"{reason} {_number(n)}" for reason, n in report["reasons"].items())


def _with_ends(interval: Interval) -> str:
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _evidence(value: float) -> str:
    return f"{value:,.1f}" if value < 1e4 else f"{value:.1e}"


def _metric(name: str) -> str:
    return _METRICS.get(name, name.replace("_", " "))


def _number(n: int) -> str:
    return f"{n:,}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def _day(at: datetime) -> str:
    return f"{at.day} {at:%B %Y}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
