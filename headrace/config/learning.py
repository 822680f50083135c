"""From answers to better ones: feedback, advice, erasure."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from headrace.config.table import Meaning, MetricName, Share, Table


class MetricTable(Table):
    kind: Literal["bool", "number"] = "bool"
    """bool: true or false; number: any finite number."""
    better: Literal["higher", "lower"] = "higher"
    """Which way is good."""


class EventsTable(Table):
    shown: Meaning = "none"
    """The answer was displayed."""
    clicked: Meaning = "none"
    """The user opened or followed it."""
    accepted: Meaning = "none"
    """The user took it over as it is."""
    edited: Meaning = "none"
    """The user changed it."""
    escalated: Meaning = "none"
    """The user asked somebody else."""


class FeedbackTable(Table):
    min_new_labels: Annotated[int, Field(ge=1)] = 50
    """`improve` starts a new version from this many labels on that count."""
    aggregation: Literal["dawid-skene", "majority", "mace"] = "dawid-skene"
    """How the labels of several people become one; tasks with other answers than one class take the majority."""
    gate_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Who is surely right in less than this share of known answers does not count."""
    min_known_answers: Annotated[int, Field(ge=1)] = 5
    """Known answers from which on a source counts fully."""
    new_source_weight: Share = 0.5
    """What a label counts until then."""
    max_source_share: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Largest part of the training rows that one source is; an equal part where there are fewer sources."""
    max_channel_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The same for the feedback of one channel, and for what came through one key."""
    burst_labels: Annotated[int, Field(ge=1)] = 50
    """Fewer corrections of a source within an hour are no burst."""
    burst_first_labels: Annotated[int, Field(ge=1)] = 1000
    """So many corrections of a labeller within an hour are a burst in the first 24 hours, when nothing is usual yet."""
    burst_times: Annotated[float, Field(ge=1)] = 10.0
    """A burst is an hour in which a source is surely more than so many times as busy as before."""
    burst_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.0001
    """Error level of that."""
    window_days: Annotated[float, Field(gt=0)] = 30
    """Days after an answer in which feedback on it is taken; not longer than the log has it (serve.log_keep_days)."""
    metrics: dict[MetricName, MetricTable] = Field(default_factory=dict)
    """Metrics that feedback may report, by name."""
    events: EventsTable = EventsTable()
    audit_share: Annotated[float, Field(ge=0, le=1, json_schema_extra={"minimum": 0.002})] = 0.01
    """Answers that are audited at random, about, doubtful ones more often; from .002 on, or 0 for none."""
    audit_salt: str = "headrace"
    """Seeds the hash that draws them; another one draws others, so leave it while audits are open."""
    audit_days: Annotated[float, Field(gt=0)] = 7
    """Days in which an audit is to be answered; live accuracy is that of answers which are older."""
    retrain_days: Annotated[float, Field(ge=0)] = 0
    """A new version is due when the newest is this old and there is any new trusted label; 0: never for its age."""
    drift_triggers: bool = True
    """Whether drift that makes answers worse asks for a new version before there are min_new_labels."""
    review_rows: Annotated[int, Field(ge=0)] = 100
    """Reviews beside audits and disagreements that are open at once; half of them are drawn at random."""

    @field_validator("audit_share")
    @classmethod
    def _from_the_floor_on(cls, value: float) -> float:
        if 0 < value < 0.002:  # stats.audits.FLOOR, of a layer above this one
            raise ValueError("0, or from .002 to 1")
        return value


class AdviseTable(Table):
    machine_hour: Annotated[float, Field(ge=0)] = 0.1
    """What an hour of the machine that serves costs, in a currency of your choice."""
    price_per_call: Annotated[float, Field(ge=0)] = 0.002
    """What somebody else asks for one answer, in the same currency; 0: nobody does."""
    label_price: Annotated[float, Field(ge=0)] = 0.05
    """What one more label costs, in the same currency."""
    max_error_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Answers that may be wrong; a threshold of confidence is sought that keeps to it."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Groups whose accuracy is compared: names of channels, or `text:` or `key:` before a regular expression."""


class EraseTable(Table):
    retrain_days: Annotated[int, Field(ge=0)] = 30
    """Days after an erasure by which versions that used what was erased should be replaced."""
