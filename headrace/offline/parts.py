"""What is done of an output so far: a folder beside it, `OUT.parts`, until the whole file takes its name.

A part is an `.answers` file, a `.bad` file, then a `.json` mark that says that both are whole. States of an output:

    (none) --add--> parts --make_whole--> whole --put_in_place--> OUT, and no folder any more

A kill leaves any of these; the next run with the same fingerprint goes on from there.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace.errors import AlreadyExists, NotFound, Unusable, WrongState
from headrace.offline.formats import Format

_SAYS = {
    "source": "the rows",
    "columns": "the columns",
    "version": "the model version",
    "channel": "the channel",
    "channel_column": "the column of channels",
    "adapters": "the adapters of channels",
    "max_chars": "data.max_chars",
    "privacy": "what is done about personal data",
    "code": "the version of headrace",
}


@dataclass(frozen=True)
class Mark:
    """What a part holds."""

    n_rows: int
    """Of the source."""
    reasons: dict[str, int]
    """Of its bad rows."""
    answer_names: list[str]


class Parts:
    """The parts of one output, for one process at a time. Use as a context manager.

    Raises (on entering):
        NotFound: the output's folder is not there.
        AlreadyExists: the output is.
        WrongState: parts of another run are there, or a run is writing them now.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any]) -> None:
        self._out, self._fingerprint = out, dict(fingerprint)
        self._folder = out.with_name(f"{out.name}.parts")
        self._removed = out.with_name(f"{out.name}.parts.removed")
        self._lock = FileLock(out.with_name(f".{out.name}.lock"))
        """Its file stays: were it removed, two who come later could each hold one of that name."""
        self._marks: list[Mark] = []

    def __enter__(self) -> "Parts":
        if not self._out.parent.is_dir():
            raise NotFound("no such folder", value=str(self._out.parent), next_step="Make it, or name another file")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise WrongState(
                "another run is writing these answers", value=str(self._out), next_step="Wait for it, or stop it"
            ) from None
        except OSError as error:
            raise Unusable(
                f"the folder cannot be written: {error.strerror}", value=str(self._out.parent), next_step="Check it"
            ) from None
        try:
            self._find()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def n_rows(self) -> int:
        """Rows of the source that are done."""
        return sum(mark.n_rows for mark in self._marks)

    @property
    def reasons(self) -> dict[str, int]:
        """Why rows are bad, with how many."""
        found: Counter[str] = Counter()
        for mark in self._marks:
            found.update(mark.reasons)
        return dict(sorted(found.items()))

    @property
    def answer_names(self) -> list[str]:
        """Names of an answer's parts; none before the first answer."""
        return next((mark.answer_names for mark in self._marks if mark.answer_names), [])

    @property
    def bad_rows(self) -> Path:
        return self._out.with_name(f"{self._out.name}.bad.jsonl")

    @property
    def is_whole(self) -> bool:
        return self._whole_mark.exists()

    def add(self, mark: Mark, *, write: Callable[[Path], None], bad: str) -> None:
        """Keep the next part; after that, no kill loses it."""
        number = len(self._marks)
        for kind in ("answers", "bad"):  # of a run that was killed before the mark
            self._part(number, kind).unlink(missing_ok=True)
        if sum(mark.reasons.values()) < mark.n_rows:
            write(self._part(number, "answers"))
        if bad:
            self._part(number, "bad").write_text(bad, "ascii")
        _write_whole(self._part(number, "json"), json.dumps(asdict(mark)))
        self._marks.append(mark)

    def make_whole(self, form: Format) -> None:
        """Join the parts to one file of answers, and one of bad rows if there are any."""
        form.join(self._existing("answers"), self._whole, self.answer_names)
        with self._whole_bad.open("wb") as file:
            for part in self._existing("bad"):
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file)
        for path in (self._whole, self._whole_bad):
            _sync(path)
        _write_whole(self._whole_mark, "{}")

    def put_in_place(self) -> None:
        """Give the whole files their names and remove the folder."""
        if self._whole_bad.exists():
            if self.reasons:
                os.replace(self._whole_bad, self.bad_rows)
            else:
                self.bad_rows.unlink(missing_ok=True)  # of an output that was removed since
                self._whole_bad.unlink()
        if self._whole.exists():
            os.replace(self._whole, self._out)
        os.replace(self._folder, self._removed)  # at once, so that a kill leaves no half of it
        shutil.rmtree(self._removed)

    def _find(self) -> None:
        """What an earlier run left.

        A part counts when its mark is there; what comes after the last mark is written again.
        """
        shutil.rmtree(self._removed, ignore_errors=True)
        if self._out.exists() and not self.is_whole:
            raise AlreadyExists(
                "there is a file already", value=str(self._out), next_step="Remove it, or name another with --out"
            )
        self._folder.mkdir(exist_ok=True)
        facts = self._folder / "fingerprint.json"
        if not facts.exists():
            _write_whole(facts, json.dumps(self._fingerprint))
        there = json.loads(facts.read_text("utf-8"))
        if there != self._fingerprint:
            raise self._of_another_run(there)
        while (mark := self._part(len(self._marks), "json")).exists():
            self._marks.append(Mark(**json.loads(mark.read_text("utf-8"))))

    def _of_another_run(self, there: Mapping[str, Any]) -> WrongState:
        differ = [name for key, name in _SAYS.items() if there.get(key) != self._fingerprint.get(key)]
        return WrongState(
            f"a run that was stopped left its parts here, and differs in {' and '.join(differ)}",
            value=str(self._folder),
            next_step="Run that one again to finish it, or remove the folder to begin anew",
        )

    def _part(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06}.{kind}"

    def _existing(self, kind: str) -> Sequence[Path]:
        return [path for n in range(len(self._marks)) if (path := self._part(n, kind)).exists()]

    @property
    def _whole(self) -> Path:
        return self._folder / f"whole{self._out.suffix}"

    @property
    def _whole_bad(self) -> Path:
        return self._folder / "whole.bad"

    @property
    def _whole_mark(self) -> Path:
        return self._folder / "whole.json"


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
