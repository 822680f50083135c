"""The world of `bench.wheel`: VADER's channels as traffic, its raters as users, and users who mean harm.

Sentences fall by group, by hash, into those that the wheel starts with, those that are asked about round by round, and
those that nobody but this bench ever sees, on which versions are measured; right is what the mean of all raters says.
A user is a rater of the sentence, drawn at random, who says what he or she said of it.

Dimensions: S sentences, D width of the vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

import headrace
from bench import processes
from bench.sentiment import LABELS, example, share_of
from headrace import vectors
from headrace.errors import HeadraceError

Ints = NDArray[np.int64]
N_START = 400
N_ROUNDS = 10
N_A_ROUND = 1_600
_MEASURED_SHARE = 0.2  # of the groups
TASK = "sentiment"
KEPT = processes.WORK / "wheel"
"""A workspace that keeps the vectors of all sentences."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """All that a world draws from (S)."""

    texts: Sequence[str]
    channels: Ints
    """Places in `names`."""
    names: Sequence[str]
    truth: Ints
    """Class of the raters' mean."""
    votes: Sequence[Ints]
    """Classes of each rater's own score; raters in the order of the file."""
    vectors: NDArray[np.float32]
    """(S, D)."""
    is_measured: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Said:
    """One user's word on one sentence."""

    sentence: int
    labeller: str
    label: int


@dataclass(frozen=True, eq=False)
class World:
    """What one seed makes of them."""

    start: Ints
    """Sentences with the label of their raters' mean."""
    rounds: Sequence[Ints]
    """Sentences that are asked about, round by round."""
    measured: Ints


@cache
def sentences() -> Sentences:
    """Those that raters have scored, with the base model's vectors, which are computed once and kept."""
    prepare = example()
    names = list(prepare.CHANNELS)
    rows = [(i, row) for i, name in enumerate(names) for row in prepare.rows(name) if row["ratings"]]
    place = {label: k for k, label in enumerate(LABELS)}
    return Sentences(
        texts=[row["text"] for _, row in rows],
        channels=np.array([i for i, _ in rows]),
        names=names,
        truth=np.array([place[prepare.label_of(row["mean"])] for _, row in rows]),
        votes=[np.array([place[prepare.label_of(score)] for score in row["ratings"]]) for _, row in rows],
        vectors=_vectors([row["text"] for _, row in rows]),
        is_measured=np.array([share_of(f"wheel {row['group']}") < _MEASURED_SHARE for _, row in rows]),
    )


def world(seed: int) -> World:
    found, rng = sentences(), np.random.default_rng(seed)
    mine = rng.permutation(np.flatnonzero(~found.is_measured))
    asked = mine[N_START : N_START + N_ROUNDS * N_A_ROUND]
    return World(mine[:N_START], np.array_split(asked, N_ROUNDS), np.flatnonzero(found.is_measured))


@dataclass(frozen=True)
class Attack:
    """What hostile labellers of one channel do."""

    kind: str
    share: float
    """Of the channel's feedback, on average over the rounds, that is theirs."""

    def names(self, n: int, at_round: int) -> list[str]:
        """Under which names `n` words are said."""
        if self.kind == "sybil":
            return [f"{HOSTILE}-{at_round}-{i}" for i in range(n)]
        return [f"{HOSTILE}-{i % _N_LIARS}" for i in range(n)]

    def answers_reviews(self, labeller: str) -> bool:
        """Names that speak once are never seen again."""
        return not (self.kind == "sybil" and labeller.startswith(HOSTILE))

    def word(self, truth: int, rng: np.random.Generator) -> int:
        """What is said of a sentence."""
        return opposite(truth) if self.kind != "drip" or rng.random() < _DRIP else truth


HOSTILE_CHANNEL = "tweets"
HOSTILE = f"{HOSTILE_CHANNEL}-hostile"
_N_LIARS = 3
_DRIP = 0.25  # of what drips is a lie
_BURST_AT = 4  # the round of it, counted from 0
ATTACKS = {
    **{f"flip-{share:.0%}": Attack("flip", share) for share in (0.1, 0.3, 0.5)},
    **{f"{kind}-30%": Attack(kind, 0.3) for kind in ("sybil", "drip", "burst")},
}


def feedback(
    of: Sentences, asked: Ints, share: float, attack: Attack | None, at_round: int, rng: np.random.Generator
) -> list[Said]:
    """What is said of a share of the asked sentences, each by one of its raters or by somebody hostile."""
    told = asked[rng.random(len(asked)) < share]
    said = [of_a_rater(of, int(i), rng) for i in told]
    if attack is None:
        return said
    mine = [n for n, one in enumerate(said) if of.names[of.channels[one.sentence]] == HOSTILE_CHANNEL]
    if attack.kind == "burst":
        free = np.setdiff1d(asked[of.channels[asked] == of.names.index(HOSTILE_CHANNEL)], told)
        n_lies = round(attack.share / (1 - attack.share) * len(mine) * N_ROUNDS) if at_round == _BURST_AT else 0
        lies = [(None, int(i)) for i in rng.permutation(free)[:n_lies]]
    else:
        lies = [(n, said[n].sentence) for n in mine if rng.random() < attack.share]
    for (n, i), name in zip(lies, attack.names(len(lies), at_round), strict=True):
        word = Said(i, name, attack.word(int(of.truth[i]), rng))
        if n is None:
            said.append(word)
        else:
            said[n] = word
    return said


def reviewed_at_random(of: Sentences, asked: Ints, n: int, rng: np.random.Generator) -> list[Said]:
    """What raters say of `n` sentences drawn at random."""
    return [of_a_rater(of, int(i), rng) for i in rng.permutation(asked)[:n]]


def word_of(of: Sentences, i: int, labeller: str, attack: Attack | None, rng: np.random.Generator) -> int:
    """What somebody answers who is asked about a sentence."""
    if attack is not None and labeller.startswith(HOSTILE):
        return attack.word(int(of.truth[i]), rng)
    rater = int(labeller.rpartition("-")[2])
    return int(of.votes[i][rater % len(of.votes[i])])


def of_a_rater(of: Sentences, i: int, rng: np.random.Generator) -> Said:
    rater = int(rng.integers(len(of.votes[i])))
    return Said(i, f"{of.names[of.channels[i]]}-rater-{rater}", int(of.votes[i][rater]))


def opposite(label: int) -> int:
    """The label that does most harm: good for bad, bad for good, and good for what is neither."""
    return 2 - label if label != 1 else 2


def _vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    try:
        ws = headrace.open_workspace(KEPT)
    except HeadraceError:
        ws = headrace.init(KEPT, task=TASK, labels=LABELS)
    with ws:
        return vectors.of_inputs(ws, texts, task=TASK)
