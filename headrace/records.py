"""The nouns that stages hand to each other: frozen, no I/O. The words are those of docs/glossary.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, Literal

from headrace.compared import Asked

Side = Literal["train", "validation", "test", "excluded"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
Input = str | tuple[str, str]
"""What a model reads: a text, or a text and its pair (two texts to compare, a question and its context)."""


@dataclass(frozen=True)
class RawLabel:
    """One labeller's assertion as a source gave it, not yet checked."""

    labeller: str
    label: object
    score: float | None = None


@dataclass(frozen=True)
class RawRow:
    """One row as a source gave it, not yet checked.

    `line` counts from 1 in the source's own terms. `error` is set when the source could not even read the row.
    """

    line: int
    text: object
    label: object = None
    key: str | None = None
    group: str | None = None
    labels: tuple[RawLabel, ...] = ()
    error: str | None = None
    detail: str = ""
    text_pair: object = None
    values: Mapping[str, Any] | None = None
    """All columns of the row, where they were asked for."""


@dataclass(frozen=True)
class Channel:
    id: str
    name: str
    description: str
    owner: str
    licence: str
    created_at: datetime


@dataclass(frozen=True)
class ImportReport:
    """What an import did: every row of the source is in exactly one of added, known or quarantined."""

    id: str
    channel: str
    source: str
    n_rows: int
    n_added: int
    n_known: int
    n_labels: int
    n_quarantined: int
    reasons: dict[str, int]
    quarantine: str
    """How to see the quarantined rows."""
    seconds: float
    n_unlabelled: int = 0
    """Rows added without any label of the task."""


@dataclass(frozen=True)
class SnapshotRow:
    """One line of a snapshot: what is trained on or measured on. `target` is what the task type parsed."""

    example_id: str
    channel: str
    key: str
    text: str
    target: Any
    side: Side
    weight: float
    origin: str
    """`import` or `feedback`: where the target came from."""
    text_pair: str | None = None

    @property
    def input(self) -> Input:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class Settled:
    """What the labels of an example that came back as feedback amount to."""

    target: Any = None
    weight: float = 0.0
    """0 to 1."""
    held_back: str | None = None
    """Why it is no row of a snapshot for now; None: it is one."""
    reviewers: frozenset[tuple[str, str | None]] = frozenset()  # labellers and keys whose reviews are its own labels


@dataclass(frozen=True)
class KnownAnswer:
    """A question whose answer is known and that does not show: what a source is judged by."""

    id: str
    task: str
    text: str
    text_pair: str | None
    text_hash: str
    answer: Any
    created_at: datetime
    retired_at: datetime | None

    @property
    def input(self) -> Input:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class Suspension:
    """Feedback of a source that does not count for now; nothing of it is deleted."""

    id: str
    task: str
    channel: str
    labeller: str | None
    """None: the whole channel."""
    since: datetime
    until: datetime | None
    """None: it goes on."""
    reason: str
    evidence: dict[str, Any]
    created_at: datetime
    lifted_at: datetime | None = None
    lifted_by: str | None = None
    lifted_because: str | None = None


@dataclass(frozen=True)
class Snapshot:
    id: str
    task: str
    content_hash: str
    artifact: str
    n_rows: int
    n_by_side: dict[str, int]
    n_by_channel: dict[str, int]
    n_from_feedback: int
    created_at: datetime
    erased_at: datetime | None = None
    """Since when its rows are gone for good; they were part of an erasure."""


@dataclass(frozen=True)
class ApiKey:
    """Who may ask a server for what; without the secret, which nobody keeps."""

    id: str
    """All of the key before its secret."""
    name: str
    scopes: tuple[str, ...]
    channels: tuple[str, ...] | None
    """Names of those that it may speak of; None: all."""
    requests_per_s: float | None
    rows_per_day: int | None
    """None, as with `requests_per_s`: what headrace.toml says."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    replaces: str | None = None
    """Id of the key that this one takes the place of."""


@dataclass(frozen=True)
class Job:
    """Background work. States: queued -> running -> done | failed | cancelled; a dead process shows as interrupted."""

    id: str
    target: str
    args: dict[str, Any]
    state: str
    pid: int | None
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    log_path: str
    created_at: datetime


@dataclass(frozen=True)
class Run:
    """One execution of a method on a snapshot. `fingerprint` is the hash of all that decides its result."""

    id: str
    task: str
    snapshot_id: str
    base_model: str
    base_digest: str
    method: str
    params: dict[str, Any]
    fingerprint: str
    seed: int
    state: str
    job_id: str | None
    checkpoint: str | None
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Trial:
    """One set of settings that a search tried, as a run. States: running -> done | pruned | failed."""

    id: str
    search: str
    """Hash of all that decides what the search tries."""
    number: int
    params: dict[str, Any]
    """What was drawn, by the names of the ranges."""
    state: str
    value: float | None
    """Best main metric on the validation side."""
    curve: list[float]
    """Main metric of the validation side at each evaluation."""
    run_id: str
    created_at: datetime


@dataclass(frozen=True)
class Artifact:
    """Files in one format, addressed by the hash of their manifest."""

    digest: str
    kind: str
    n_bytes: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class ModelVersion:
    """Task + base model + method + artifact, numbered from 1 without gaps; immutable."""

    id: str
    task: str
    number: int
    run_id: str
    snapshot_id: str
    checkpoint: str
    artifact: str
    created_at: datetime

    @property
    def name(self) -> str:
        return f"{self.task}/{self.number}"


@dataclass(frozen=True)
class Adapter:
    """What a channel would add to a version's shared model, and whether held-out evidence lets it."""

    channel: str
    artifact: str | None
    """Of its files, as peft loads them; None where it is not kept."""
    weights: str | None
    """Digest of its weights: what answers name; None where it is not kept."""
    is_kept: bool
    evidence: dict[str, Any]
    """What evaluate.adapters decided on, and why."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one predictor on one side of one snapshot; `results` is the JSON that evaluate.metrics makes."""

    id: str
    task: str
    version_id: str | None
    predictor: str
    snapshot_id: str
    side: str
    results: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Release:
    """The decision to expose a candidate beside the control. States: open -> promoted | rejected | stopped | mixed."""

    id: str
    task: str
    control_id: str
    candidate_id: str
    policy: str
    options: dict[str, Any]
    """What the policy is asked with, frozen at the start."""
    state: str
    started_at: datetime
    ended_at: datetime | None
    others: tuple[str, ...] = ()
    """Further candidates: the arms candidate-2, candidate-3, ... in this order."""
    scope: tuple[str, ...] | None = None
    """Names of the channels it is about; None: the whole task."""
    weights: Mapping[str, float] = field(default_factory=lambda: {"control": 1.0})
    """Arm to share of traffic, in the order in which units are assigned."""
    stage: int = 0  # how often the weights were advanced

    def version_of(self, arm: str) -> str:
        """Id of the version that answers in a candidate's arm; of the control in all others."""
        if arm in ("candidate", "shadow"):
            return self.candidate_id
        head, _, number = arm.partition("-")
        return self.others[int(number) - 2] if head == "candidate" else self.control_id


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the append-only ledger: what was decided, by which rule, on what evidence.

    Kinds: promote and rollback put a version in charge; start, advance, hold, reject and stop are about a release.
    """

    seq: int
    id: str
    task: str
    kind: str
    version_id: str | None
    release_id: str | None
    reason: str
    evidence: dict[str, Any]
    actor: str
    at: datetime
    channel: str | None
    """The channel it is about; None: the whole task."""
    prev_hash: str
    """Hash of the line before; empty in the first."""
    hash: str
    """sha256 over all of the line with `prev_hash`, so that no line before can change unseen."""


@dataclass(frozen=True)
class Prediction:
    """One answered input."""

    id: str
    request_id: str
    task: str
    channel: str
    unit: str | None
    arm: str
    release_id: str | None
    version_id: str
    artifact: str
    adapter: str | None
    text: str | None
    text_hash: str
    output: dict[str, Any]
    latency_ms: float
    error: str | None
    at: datetime
    text_pair: str | None = None
    probability: float = 1.0
    """With which the unit met the arm at that moment."""
    audit_probability: float | None = None
    """With which it was drawn for an audit; None: it could not be."""


@dataclass(frozen=True)
class Feedback:
    """An observation about a prediction: exactly one of correction, metric with value, comment, event."""

    id: str
    prediction_id: str
    kind: Literal["correction", "metric", "comment", "event"]
    correction: Any
    metric: str | None
    value: float | None
    comment: str | None
    labeller: str
    idempotency_key: str | None
    at: datetime
    event: str | None = None
    """What the user did, of those that headrace.toml declares."""
    key_id: str | None = None  # through which it came; None: through none


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval at `level`."""

    estimate: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class Outcome:
    """A correction joined to what control and candidate answered for the same request."""

    channel: str
    control_correct: bool
    candidate_correct: bool
    is_asked: bool = True
    """A reviewer says so, who was asked about it by a coin; else somebody corrected the answer unasked."""
    at: datetime | None = field(default=None, compare=False)  # of the newest label; no part of the evidence


@dataclass(frozen=True)
class Answered:
    """A labelled answer of one arm, and the shares of the arms when it was given."""

    arm: str
    channel: str
    is_right: bool
    shares: Mapping[str, float]
    at: datetime | None = field(default=None, compare=False)  # of the newest label; no part of the evidence


@dataclass(frozen=True)
class Traffic:
    """Counts of one arm's requests; of disjoint requests they add up."""

    n_requests: int = 0
    n_errors: int = 0  # answered with a server error, or with a row that failed
    n_timeouts: int = 0
    n_slow: int = 0  # slower than the release's limit
    n_abstained: int = 0
    n_units: int = 0
    """Units that met this arm first; a unit that meets several server processes counts in each."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*map(add, vars(self).values(), vars(other).values()))


@dataclass(frozen=True)
class Score:
    """Counts of one arm's labelled answers; of disjoint answers they add up."""

    n: int = 0
    n_right: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.n + other.n, self.n_right + other.n_right)


@dataclass(frozen=True)
class Batch:
    """A stage: what came of the requests that met the arms with these shares, whenever their labels came."""

    shares: Mapping[str, float]
    feedback: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    traffic: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that a policy decides on: what a release has seen until now."""

    outcomes: Sequence[Outcome] = ()
    """Paired, in the order they came: the same input answered by control and candidate (shadow)."""
    traffic: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)
    """Arm to channel to counts of requests."""
    feedback: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    """Arm to channel to counts of labelled answers, one of each unit."""
    batches: Sequence[Batch] = ()
    """The same requests and answers by stage, the oldest first; the last holds the shares of now."""
    n_repeated_labels: int = 0  # labelled answers that do not count, as an earlier one of their unit does
    n_requests: int = 0  # inputs that the release has answered
    stage: int = 0
    stage_elapsed_s: float = 0.0
    """Since the release came into this stage, on a clock that nobody sets; 0 where nobody watched."""
    stage_requests: int = 0
    """Requests since then to the arm that got fewest; the control is none where a slice of it is an arm."""
    asked: Asked | None = None  # of a shadow release whose differences a coin asks about


Verdict = Literal["promote", "hold", "reject", "stop", "advance"]


@dataclass(frozen=True)
class Decision:
    """What a policy says about a release, why, and the numbers it rests on."""

    verdict: Verdict
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    channels: Mapping[str, Verdict] = field(default_factory=dict)
    """Channel to what is decided for it alone; empty: the verdict is about all of the release's scope."""
    weights: Mapping[str, float] | None = None  # arm to share of traffic from now on (advance)
    arm: str = "candidate"  # whose version a promotion puts in charge
