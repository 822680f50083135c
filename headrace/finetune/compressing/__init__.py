"""Ways to make a trained network smaller. One file each: what is cut out, and how much of it stays by default.

To add one: copy layers.py; describe it as a `Way`; add its line to WAYS; write its lines in docs/compress.md. The
conformance tests find it through the table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import BadConfig
from headrace.finetune.methods import Plan
from headrace.registry import Registry

if TYPE_CHECKING:
    from headrace.checkpoints.network import Network

WAYS = Registry(
    "ways",
    {
        name: f"headrace.finetune.compressing.{name.replace('-', '_')}:WAY"
        for name in ("layers", "heads", "feed-forward", "vocabulary")
    },
)


@dataclass(frozen=True)
class Way:
    """A way to make a network smaller."""

    cut: Callable[["Network", Plan, float], Any]
    """Changes the network in place; gives the tokenizer that goes with it. Takes the share that stays."""
    share: float
    """What stays where nobody says how much."""
    loses: bool = True
    """Whether something is lost that training must recover; what loses nothing is cut after the training."""
    check: Callable[["Network", Plan], None] = lambda _network, _plan: None
    """Raises BadInput where the network or its tokenizer is of a kind that cannot be cut."""


@dataclass(frozen=True, order=True)
class Step:
    """One way of a candidate, and the share that stays."""

    way: str
    share: float

    def __str__(self) -> str:
        return f"{self.way}={self.share:g}"


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a candidate, such as `layers=0.5+vocabulary`, in the order of the table.

    Raises:
        NotFound: no such way.
        BadConfig: a share that is none, or a way named twice.
    """
    steps = [_step(part.strip()) for part in text.split("+")]
    names = [step.way for step in steps]
    if len(set(names)) < len(names):
        raise BadConfig("a way is named twice", value=text, next_step="Name each way once")
    order = list(WAYS.targets())
    return tuple(sorted(steps, key=lambda step: order.index(step.way)))


def candidate_name(steps: tuple[Step, ...]) -> str:
    return "+".join(map(str, steps))


def _step(text: str) -> Step:
    name, equals, share = text.partition("=")
    way: Way = WAYS.get(name.strip())
    if not equals:
        return Step(name.strip(), way.share)
    try:
        number = float(share)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise BadConfig(
            f"the share of {name!r} that stays is a number above 0 and up to 1",
            value=text,
            next_step=f"Write such as {name}={way.share:g}",
        )
    return Step(name.strip(), number)
