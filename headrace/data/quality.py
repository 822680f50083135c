"""What is wrong with the examples of a task before anything is trained on them: one table of figures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from headrace.data.near_duplicates import Ints, linked, near_duplicate_pairs
from headrace.data.snapshot import target_of
from headrace.data.split import EXCLUDED
from headrace.errors import WrongState
from headrace.store import examples
from headrace.tasks import TASK_TYPES, TaskType
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

CountTokens = Callable[[list[str]], list[int]]
ProgressCall = Callable[[int, int | None], None]
ALL = "(all)"
_N_COUNTED = 2000  # texts between two calls of progress


@dataclass(frozen=True)
class Finding:
    """One figure of one check, for a channel or for all."""

    check: str
    channel: str
    figure: str
    n: float
    share: float | None
    explanation: str


@dataclass(frozen=True)
class QualityReport:
    """Findings of every check. `length_unit` is `tokens` of the base model, or `words` without its tokenizer."""

    task: str
    n_examples: int
    length_unit: str
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and lines of one table: a line per figure, a column per channel; `as_json` explains each figure."""
        channels = sorted({f.channel for f in self.findings} - {ALL})
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for f in self.findings:
            share = "" if f.share in (None, 0, 1) else f"\u00a0({100 * f.share:.1f}\u00a0%)"
            lines.setdefault((f.check, f.figure), {})[f.channel] = f"{f.n:g}{share}"
        headings = ["check", "figure", "all", *channels]
        return headings, [[*key, *(cells.get(c, "-") for c in (ALL, *channels))] for key, cells in lines.items()]

    def n(self, check: str, figure: str, channel: str = ALL) -> float:
        """One figure by name.

        Raises:
            KeyError: no such figure.
        """
        for finding in self.findings:
            if (finding.check, finding.figure, finding.channel) == (check, figure, channel):
                return finding.n
        raise KeyError((check, figure, channel))


@dataclass(frozen=True)
class Judged:
    """An example as the checks see it."""

    channel: str
    key: str
    group_key: str
    text: str
    """Both parts of an input with two."""
    text_hash: str
    target: Any
    """None for an unlabelled example."""
    side: str | None
    """None before the first snapshot."""


def check(
    ws: Workspace,
    *,
    task: str | None = None,
    count_tokens: CountTokens | None = None,
    progress: ProgressCall | None = None,
) -> QualityReport:
    """Look for duplicates, contradictions, leaks between the sides, odd balance and long texts.

    Args:
        count_tokens: the base model's tokenizer; without it lengths are in words.
        progress: called with texts measured and texts in all.

    Raises:
        WrongState: there are no examples.
    """
    task = ws.task_name(task)
    settings = ws.task(task)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    with ws.store.read() as conn:
        sides = examples.sides(conn)
        lines = examples.labelled_rows(conn, task, unlabelled=True)
        judged = [_judged(list(same), sides, task_type) for _, same in groupby(lines, key=attrgetter("example_id"))]
    if not judged:
        raise WrongState("there are no examples to check", value=task, next_step="Run: headrace import")
    pairs = near_duplicate_pairs([one.text for one in judged], ws.settings.data.near_duplicate_share)
    lengths = _measured(judged, count_tokens or _count_words, progress)
    unit = "tokens" if count_tokens else "words"
    findings = [
        *_amounts(judged),
        *duplicates(judged, pairs),
        *conflicts(judged, pairs, is_number=task_type.problem == "regression"),
        *leaks(judged, pairs),
        *_balance(judged, task_type, settings.labels),
        *_lengths(judged, lengths, unit, settings.max_tokens),
    ]
    return QualityReport(task=task, n_examples=len(judged), length_unit=unit, findings=tuple(findings))


def duplicates(judged: Sequence[Judged], pairs: Ints) -> list[Finding]:
    """Examples that repeat an earlier one, exactly or nearly, per channel of the repeating one."""
    seen: set[str] = set()
    exact, near = Counter[str](), Counter[str]()
    leader = linked(len(judged), pairs)
    for i, one in enumerate(judged):
        if one.text_hash in seen:
            exact[one.channel] += 1
        elif leader[i] != i:
            near[one.channel] += 1
        seen.add(one.text_hash)
    sizes = Counter(one.channel for one in judged)
    return [
        *_per_channel("duplicates", "exact", exact, sizes, "same text as an earlier example"),
        *_per_channel("duplicates", "near", near, sizes, "nearly the text of an earlier example"),
    ]


def conflicts(judged: Sequence[Judged], pairs: Ints, *, is_number: bool = False) -> list[Finding]:
    """Labelled examples whose text has another target elsewhere. Numbers conflict when more than 1 apart."""
    exact, near = defaultdict(list), defaultdict(list)
    for one, leader in zip(judged, linked(len(judged), pairs).tolist(), strict=True):
        if one.target is not None:
            exact[one.text_hash].append(one)
            near[leader].append(one)
    counted = []
    for groups in (exact, near):
        counts = Counter[str]()
        for group in groups.values():
            targets = [one.target for one in group]
            if max(targets) - min(targets) > 1 if is_number else any(target != targets[0] for target in targets):
                counts.update(one.channel for one in group)
        counted.append(counts)
    sizes = Counter(one.channel for one in judged if one.target is not None)
    return [
        *_per_channel("conflicting labels", "same text", counted[0], sizes, "same text, different targets"),
        *_per_channel("conflicting labels", "near text", counted[1], sizes, "nearly the same text, different targets"),
    ]


def leaks(judged: Sequence[Judged], pairs: Ints) -> list[Finding]:
    """Examples of the test or validation side that resemble, or share a group with, one that is trained on."""
    leaking: set[int] = set()
    used = [None if one.side == EXCLUDED else one.side for one in judged]
    for members in _families(judged, pairs):
        if len({used[i] for i in members} - {None}) > 1:
            leaking.update(i for i in members if used[i] in ("test", "validation"))
    sizes = Counter(one.channel for one, side in zip(judged, used, strict=True) if side in ("test", "validation"))
    found = Counter(judged[i].channel for i in leaking)
    return _per_channel("leakage", "held-out examples", found, sizes, "resemble an example of another side")


def _families(judged: Sequence[Judged], pairs: Ints) -> list[list[int]]:
    """Sets of examples that must not be on different sides: near pairs by themselves, equal texts, same groups."""
    by_text, by_group = defaultdict(list), defaultdict(list)
    for i, one in enumerate(judged):
        by_text[one.text_hash].append(i)
        by_group[one.group_key].append(i)
    together = [members for members in (*by_text.values(), *by_group.values()) if len(members) > 1]
    return [*pairs.tolist(), *together]


def _measured(judged: Sequence[Judged], count: CountTokens, progress: ProgressCall | None) -> list[int]:
    lengths: list[int] = []
    for low in range(0, len(judged), _N_COUNTED):
        lengths += count([one.text for one in judged[low : low + _N_COUNTED]])
        if progress is not None:
            progress(len(lengths), len(judged))
    return lengths


def _count_words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _judged(lines: Sequence[examples.LabelledRow], sides: Mapping[str, str], task_type: TaskType) -> Judged:
    one = lines[0]
    target = None if one.labeller_id is None else target_of(lines, task_type)
    side = sides.get(one.group_key)
    return Judged(one.channel, one.key, one.group_key, as_one_text(one.input), one.text_hash, target, side)


def _amounts(judged: Sequence[Judged]) -> list[Finding]:
    sizes = Counter(one.channel for one in judged)
    bare = Counter(one.channel for one in judged if one.target is None)
    return [
        *_per_channel("examples", "all", sizes, sizes, "examples that were imported or came back"),
        *_per_channel("examples", "unlabelled", bare, sizes, "no label of this task"),
    ]


def _balance(judged: Sequence[Judged], task_type: TaskType, labels: Sequence[str]) -> list[Finding]:
    found = []
    for channel, mine in _by_channel(judged).items():
        targets = [one.target for one in mine if one.target is not None]
        if not targets:
            continue
        if task_type.problem == "regression":
            for figure, value in (("mean", np.mean(targets)), ("deviation", np.std(targets))):
                found.append(Finding("targets", channel, figure, round(float(value), 4), None, "of the targets"))
            continue
        counts = Counter(name for target in targets for name in _names_in(target))
        for name in labels:
            share = counts[name] / len(targets)
            found.append(Finding("class balance", channel, name, counts[name], share, "of the labelled examples"))
    return found


def _names_in(target: Any) -> set[str]:
    """The labels that a target names: itself, one of several, or those of its spans."""
    if isinstance(target, str):
        return {target}
    parts = target if isinstance(target, list) else []
    return {part if isinstance(part, str) else part[2] for part in parts}


def _lengths(judged: Sequence[Judged], lengths: Sequence[int], unit: str, max_tokens: int) -> list[Finding]:
    by_channel: dict[str, list[int]] = defaultdict(list)
    for one, length in zip(judged, lengths, strict=True):
        by_channel[ALL].append(length)
        by_channel[one.channel].append(length)
    note = f"{unit} in a text" if unit == "tokens" else "words in a text; tokens need headrace[train]"
    found = []
    for channel, mine in by_channel.items():
        for figure, value in (
            ("mean", np.mean(mine)),
            ("95th percentile", np.quantile(mine, 0.95)),
            ("max", max(mine)),
        ):
            found.append(Finding("length", channel, figure, round(float(value), 2), None, note))
        n_cut = sum(length > max_tokens for length in mine)
        found.append(Finding("length", channel, f"over {max_tokens}", n_cut, n_cut / len(mine), f"cut at {max_tokens}"))
    return found


def _by_channel(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {ALL: list(judged)}
    for one in judged:
        found.setdefault(one.channel, []).append(one)
    return found


def _per_channel(
    check: str, figure: str, counts: Mapping[str, int], sizes: Mapping[str, int], explanation: str
) -> list[Finding]:
    """A finding for all channels together and for each; shares are of `sizes`."""
    total, size = sum(counts.values()), sum(sizes.values())
    lines = [(ALL, total, size), *((name, counts.get(name, 0), sizes[name]) for name in sorted(sizes))]
    return [Finding(check, name, figure, n, n / of if of else None, explanation) for name, n, of in lines]
