"""What finding personal data costs, and what it finds.

Speed: texts a second on one core, of four kinds: short texts as customers write them, the same with a number that is
nobody's, with a value in every tenth, with a value in each. Found, in forms and places that people write (see
personal_forms) and in the recognisers' own forms among numbers of things (personal_material): of values planted in
texts, how many are gone, of whatever kind they were taken for; of what was found, how much was planted. On texts that
people wrote: how many distinct values are found, and how many of them are nobody's, judged by hand.

Run: python -m bench.personal [--n-each 1500] [--seeds 1 2 3]
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import corpora, personal_forms, personal_material
from bench.reporting import Measured, write
from headrace.personal import finding
from headrace.personal.policies import Door
from headrace.stats import intervals
from headrace.workspace import init, open_workspace

WANTED = {"rows a second": 20_000}
_REAL = ("banking77", "clinc150", "vader", "btc", "wnut17", "feedbackqa", "xquad", "nlupp", "snips")
_N_EACH_PLACE = 10
_NOBODYS: frozenset[str] = frozenset()  # of the values found in real texts, those that a person judged to be none
_TEXTS = (
    "the service was really good today and it works fine for all of us", "why is my card not here yet?",
    "the app is slow since the update, please mend it", "i want my money back", "great film, would see it again",
    "can you tell me when my order will arrive, it has been a week now and nobody answers me",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n-each", type=int, default=1500, help="texts with a value of each kind")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    corpora.add_data_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "ws"
        init(root, task="t", labels=("a", "b")).close()
        measured = [*_speed(root, options.n_each), *_by_form(options.seeds), *_found(options.seeds, options.n_each)]
        measured += _real(options.data)
    write("personal", measured, seeds=options.seeds)


def _speed(root: Path, n_each: int) -> list[Measured]:
    """Texts a second through the door, one core, the best of three: what others run beside takes from the rest."""
    rng = random.Random(0)
    planted = [row.text for row in personal_material.rows(0, n_each) if row.kind]
    hard = [row.text for row in personal_material.rows(0, n_each) if not row.kind]
    short = [rng.choice(_TEXTS) for _ in range(20_000)]
    mixes = {
        "short": short,
        "with a number that is nobody's": hard,
        "a value in every tenth": [planted[i % len(planted)] if i % 10 == 0 else text for i, text in enumerate(short)],
        "a value in each": planted,
    }
    measured = []
    for policy in ("off", "mask", "replace"):
        with open_workspace(root, overrides={"privacy.personal": policy}) as ws:
            door = Door(ws)
            for name, texts in mixes.items():
                rate = max(_rate(door, texts) for _ in range(3))
                measured.append(
                    Measured(f"{policy}: {name}", rate, "rows/s", "asked for", rate / WANTED["rows a second"])
                )
    return measured


def _rate(door: Door, texts: Sequence[str]) -> float:
    began = time.process_time()
    for text in texts:
        door.clean("c", text)
    return len(texts) / (time.process_time() - began)


def _by_form(seeds: Sequence[int]) -> list[Measured]:
    """Of values in the forms and places that people write them in, how many are gone to the last letter or digit."""
    n_gone: Counter[str] = Counter()
    n_all: Counter[str] = Counter()
    for row in (row for seed in seeds for row in personal_forms.rows(seed, _N_EACH_PLACE)):
        is_gone = _is_gone(row)
        country = row.form.partition(":")[0] if row.kind == "phone" else ""
        for what in ("all", row.kind, f"phone, {country}" * bool(country), f"{row.kind}, {row.form}", row.place):
            n_gone[what] += is_gone
            n_all[what] += 1
    shares = {what: intervals.wilson(n_gone[what], n) for what, n in n_all.items() if what}
    return [
        Measured(f"as people write it, {what}", share.estimate, "share", low=share.low, high=share.high)
        for what, share in shares.items()
    ]


def _is_gone(row: personal_forms.Written) -> bool:
    left = list(row.text)
    for one in finding.find(row.text):
        left[one.start : one.end] = "\0" * (one.end - one.start)
    at, secret = 0, "".join(left)
    for value in row.values:
        start = row.text.index(value, at)
        core = row.kind == "credentials"  # the host may stay
        value = value.partition("://")[2].rpartition("@")[0] if core else value
        start = row.text.index(value, start)
        at = start + len(value)
        if any(character.isalnum() for character in secret[start:at]):
            return False
    return True


def _real(data: Path) -> list[Measured]:
    """Distinct values found in what people wrote, where the recognisers take something for personal data."""
    measured = []
    for name in _REAL:
        if not corpora.is_there(name, data):
            continue
        texts = list(_texts_of(name, data))
        found = {(one.kind, text[one.start : one.end]) for text in texts for one in finding.find(text)}
        n_false = sum(value in _NOBODYS for _, value in found)
        n_chars = sum(map(len, texts))
        measured.append(Measured(f"real: {name}, {n_chars} characters, distinct values found", len(found), "finds"))
        measured.append(Measured(f"real: {name}, of these nobody's", n_false, "finds"))
    return measured


def _texts_of(name: str, data: Path) -> Iterator[str]:
    if name in corpora.CORPORA:
        yield from (row.text for row in corpora.load(name, data).rows)
        return
    for path in sorted((data / name).rglob("*.json")):
        yield from _strings(json.loads(path.read_text("utf-8", errors="replace")))


def _strings(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for inner in said.values() if isinstance(said, dict) else said:
            yield from _strings(inner)


def _found(seeds: Sequence[int], n_each: int) -> list[Measured]:
    n_planted: Counter[str] = Counter()
    n_gone: Counter[str] = Counter()
    n_named: Counter[str] = Counter()
    n_false: Counter[str] = Counter()
    n_found = 0
    for row in (row for seed in seeds for row in personal_material.rows(seed, n_each)):
        start = row.text.find(row.value) if row.kind else -1
        end = start + len(row.value)
        found = finding.find(row.text)
        of_value = [one for one in found if row.kind and one.start < end and start < one.end]
        n_found += len(found)
        n_false.update(one.kind for one in found if one not in of_value)
        n_planted[row.kind] += 1
        covered = sum(one.end - one.start for one in of_value)
        n_gone[row.kind] += bool(row.kind) and covered >= end - start
        n_named[row.kind] += any(one.kind == row.kind for one in of_value)
    kinds = [kind for kind in n_planted if kind]
    all_planted = sum(n_planted[kind] for kind in kinds)
    recall = intervals.wilson(sum(n_gone[kind] for kind in kinds), all_planted)
    precision = intervals.wilson(n_found - n_false.total(), n_found)
    by = f"check digits by {personal_material.validators()}"
    measured = [
        Measured(
            f"recognisers' forms: recall, {all_planted} values ({by})",
            recall.estimate,
            "share",
            low=recall.low,
            high=recall.high,
        ),
        Measured(
            f"recognisers' forms: precision, {n_found} finds",
            precision.estimate,
            "share",
            low=precision.low,
            high=precision.high,
        ),
    ]
    for kind in sorted(kinds):
        share = intervals.wilson(n_gone[kind], n_planted[kind])
        measured.append(
            Measured(f"recognisers' forms: recall, {kind}", share.estimate, "share", low=share.low, high=share.high)
        )
    measured += [Measured(f"named as another kind, {k}", 1 - n_named[k] / n_planted[k], "share") for k in sorted(kinds)]
    return measured + [Measured(f"false finds, {kind}", n, "finds") for kind, n in sorted(n_false.items())]


if __name__ == "__main__":
    main()
