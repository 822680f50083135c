"""Answer the rows of a file: without a server, without a log, and in memory that does not grow with the file.

`table` is the file that is read, `formats` (with `parquet`) the one that is written, `parts` what is done so far,
`channels` which adapters answer, `naming` what suffixes and columns mean.
Every row of the source ends in exactly one of two files: the answers, or the bad rows beside them.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from headrace import signing
from headrace.data.checking import Checker, put_aside
from headrace.errors import BadInput
from headrace.offline.channels import Channels
from headrace.offline.formats import Format, format_of, json_text
from headrace.offline.naming import PREFIX
from headrace.offline.parts import Mark, Parts
from headrace.offline.table import Table, open_table
from headrace.personal.policies import door_of, privacy_of
from headrace.records import Input, ModelVersion, RawRow
from headrace.release import controls
from headrace.serve.worker import Model, answer, load_model
from headrace.store.imports import Quarantined
from headrace.tasks import TASK_TYPES, TaskType
from headrace.version import VERSION
from headrace.workspace import Workspace

_PART_ROWS = 4096  # enough for batches of like length; a kill loses the work on as many
_PART_CHARS = 1 << 24

Report = Callable[..., None]


@dataclass(frozen=True)
class OfflineReport:
    """What became of a file: every row of `source` is in exactly one of `output` and `bad_rows`."""

    source: str
    output: str
    version: str
    n_rows: int
    n_answered: int
    n_bad: int
    reasons: dict[str, int]
    """Why rows are bad, with how many."""
    bad_rows: str | None
    """JSON lines with line, reason, detail and row; None where no row is bad."""
    n_resumed: int
    """Rows that an earlier run had done."""
    seconds: float


def predict_file(
    ws: Workspace,
    source: Path | str,
    output: Path | str | None = None,
    *,
    task: str | None = None,
    version: str | None = None,
    channel: str | None = None,
    channel_column: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    report: Report = lambda *_args, **_facts: None,
) -> OfflineReport:
    """Answer each row of a CSV, JSON lines or Parquet file with a version (default: the one in charge).

    The output has the columns of the source and those of the answers. It appears when it is whole; a run that was
    killed goes on where it was when the same call comes again.

    Args:
        output: default: `NAME.answers.SUFFIX` beside the source; its suffix is its format.
        channel: whose rows they are: the version in charge of it answers, with its adapter if there is one.
        channel_column: column that names the channel of each row, in place of `channel`; one version answers them all,
            with their adapters.
        text_column, pair_column: the input's parts; None: the names that the task type gives them.

    Raises:
        NotFound: no such file, version or channel.
        BadInput: the file cannot be read as a whole, or has no rows.
        AlreadyExists: the output is there already.
        WrongState: no version is in charge, or another run with other rows or settings left its parts.
        MissingExtra: Parquet needs pyarrow.
    """
    began = time.monotonic()
    name = ws.task_name(task)
    found = controls.find_version(ws, name, version) if version else controls.serving(ws, name).control_of(channel)
    table = open_table(ws, name, Path(source), text_column=text_column, pair_column=pair_column)
    out = _output(table.path, output)
    form = format_of(out, table)
    work = _Work(name, found, table, Channels(ws, found, table, channel, channel_column), form, privacy_of(ws.settings))
    with Parts(out, work.fingerprint) as parts:
        n_resumed = parts.n_rows
        if not parts.is_whole:
            _answer_rest(ws, work, parts, report)
            parts.make_whole(form)
        parts.put_in_place()
    n_bad = sum(parts.reasons.values())
    return OfflineReport(
        source=str(source),
        output=str(out),
        version=found.name,
        n_rows=parts.n_rows,
        n_answered=parts.n_rows - n_bad,
        n_bad=n_bad,
        reasons=parts.reasons,
        bad_rows=str(parts.bad_rows) if n_bad else None,
        n_resumed=n_resumed,
        seconds=round(time.monotonic() - began, 3),
    )


def _output(source: Path, output: Path | str | None) -> Path:
    out = source.with_name(f"{source.stem}.answers{source.suffix}") if output is None else Path(output)
    if out.absolute() == source.absolute():
        raise BadInput("the answers would replace the rows", value=str(out), next_step="Name another file with --out")
    return out


@dataclass(frozen=True)
class _Work:
    task: str
    version: ModelVersion
    table: Table
    channels: Channels
    form: Format
    privacy: Mapping[str, Any]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that decides what the output holds."""
        return {
            "source": self.table.digest,
            "columns": [self.table.options.text, self.table.options.pair],
            "version": self.version.artifact,
            **self.channels.facts,
            "max_chars": self.table.options.max_chars,
            "privacy": self.privacy,
            "code": VERSION,
        }


def _answer_rest(ws: Workspace, work: _Work, parts: Parts, report: Report) -> None:
    """Answer what no earlier run did, part after part."""
    table, settings = work.table, ws.task(work.task)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    door, max_chars = door_of(ws), table.options.max_chars
    checker_of = cache(lambda channel: Checker(channel, settings, task_type, max_chars, door))
    rows = table.rows()
    deque(islice(rows, parts.n_rows), maxlen=0)  # passed over without keeping them
    model: Model | None = None
    report("rows", parts.n_rows, table.n_rows)
    for part in _parts_of(rows):
        if model is None:
            digest = work.version.artifact
            model = load_model(
                signing.folder_of(ws, work.version, digest), digest, n_threads=ws.settings.serve.n_threads
            )
            work.channels.load(ws, work.version, model)
        given = [_checked(checker_of, work.channels, row) for row in part]
        answered, bad = _answered(model, work.channels, part, given)
        names = parts.answer_names or (list(answered[0][1]) if answered else [])
        lines = [_merged(row, answers, names) for row, answers in answered]
        reasons = dict(Counter(one.reason for one, _ in bad))
        parts.add(
            Mark(len(part), reasons, names),
            write=partial(work.form.write, lines=lines, answer_names=names),
            bad="".join(_bad_line(one, row) for one, row in bad),
        )
        report("rows", parts.n_rows, max(table.n_rows, parts.n_rows), bad=sum(parts.reasons.values()))
    if not parts.n_rows:
        raise BadInput("the file has no rows", value=str(table.path), next_step="Give one with a row or more")
    table.refuse_if_changed()


def _parts_of(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    """Rows in portions that are bounded in rows and in characters."""
    part: list[RawRow] = []
    n_chars = 0
    for row in rows:
        part.append(row)
        n_chars += sum(len(text) for text in (row.text, row.text_pair) if isinstance(text, str))
        if len(part) == _PART_ROWS or n_chars >= _PART_CHARS:
            yield part
            part, n_chars = [], 0
    if part:
        yield part


def _checked(checker_of: Callable[[str | None], Checker], channels: Channels, row: RawRow) -> Input | Quarantined:
    given = checker_of(channels.of(row)).check_input(row)
    if isinstance(given, Quarantined) or row.values is None:
        return given
    if problem := channels.problem_of(row):
        return put_aside(row.line, "unknown_channel", problem, row.text)
    for name, value in row.values.items():
        if not _is_utf8(name) or not _is_utf8(value):  # of a column that is only passed on
            return put_aside(row.line, "wrong_encoding", f"column {name!r} holds what is not UTF-8", row.text)
    return given


def _is_utf8(value: object) -> bool:
    """Whether a value can be written; a wrong byte and half a surrogate pair cannot."""
    try:
        text = value if isinstance(value, str) else json_text(value) if isinstance(value, list | dict) else ""
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _answered(
    model: Model, channels: Channels, rows: Sequence[RawRow], given: Sequence[Input | Quarantined]
) -> tuple[list[tuple[RawRow, Mapping[str, Any]]], list[tuple[Quarantined, RawRow]]]:
    """Rows with their answers, and rows without; both in the order of the file."""
    sound = [one for one in given if not isinstance(one, Quarantined)]
    pairs = zip(rows, given, strict=True)
    adapters = [channels.adapter_of(row) for row, one in pairs if not isinstance(one, Quarantined)]
    results = iter(answer(model, sound, adapters) if sound else [])
    used = iter(adapters)
    answered: list[tuple[RawRow, Mapping[str, Any]]] = []
    bad: list[tuple[Quarantined, RawRow]] = []
    for row, one in zip(rows, given, strict=True):
        if isinstance(one, Quarantined):
            bad.append((one, row))
            continue
        result, adapter = next(results), next(used)
        if "output" in result:
            named = {"adapter": adapter.digest if adapter else None} if channels.have_adapters else {}
            answered.append((row, {**result["output"], **named}))
        else:
            bad.append((put_aside(row.line, "model_failed", result["error"]["message"], row.text), row))
    return answered, bad


def _merged(row: RawRow, answers: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**(row.values or {}), **{f"{PREFIX}{name}": answers.get(name) for name in names}}


def _bad_line(one: Quarantined, row: RawRow) -> str:
    """Everything of the row that could be read goes with it; escaped, since it may not be UTF-8."""
    whole = row.values if row.values is not None else row.text
    return (
        json_text({"line": one.line, "reason": one.reason, "detail": one.detail, "row": whole}, ascii_only=True) + "\n"
    )
