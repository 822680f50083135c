"""From a version to answers: the server and releases."""

from typing import Annotated, Literal

from pydantic import Field

from headrace.config.table import Share, Table


class ServeTable(Table):
    host: str = "127.0.0.1"
    """Address to listen at; one that other machines reach needs a key (`headrace key create`)."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0 takes a free one."""
    batch_tokens: Annotated[int, Field(ge=16)] = 2048
    """Padded tokens in one batch of the worker."""
    max_rows: Annotated[int, Field(ge=1)] = 1000
    """Rows in one request."""
    max_queue_rows: Annotated[int, Field(ge=1)] = 5000
    """Rows that may wait for the workers before requests are shed; one channel fills four fifths at most."""
    timeout_s: Annotated[float, Field(gt=0)] = 30
    """Longest time that a request may wait for its answer; `X-Request-Timeout-Ms` can say less."""
    header_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Time in which the head of a request must have come; slower connections are cut."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 30
    """Time in which the body of a request must have come, and in which a client must read its answer."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """Connections at once; more are closed as they come."""
    default_task: str = ""
    """Task of `POST /predict`, whose protocol names none; empty: the only task."""
    default_channel: str = ""
    """Channel of requests in other protocols that name none; empty: the only channel."""
    n_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of a worker; 0: measured at the first start with an artifact."""
    n_workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes; 0: measured at the first start with an artifact."""
    ready_needs_disk: bool = False
    """Not ready while the workspace's disk cannot be written. Answers do not need it, their log and feedback do."""
    worker_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Address space that a worker may take; 0: no limit."""
    network: Literal["denied", "allowed"] = "denied"
    """Whether workers, which read models, may reach other machines; a backend of your own may need one."""
    log_format: Literal["text", "json"] = "text"
    """Lines of the server's log. None holds what a request said."""
    log_requests: bool = False
    """A line in the server's log for every request."""
    log_inputs: Literal["text", "hash"] = "text"
    """What the prediction log keeps of an input. Feedback becomes training rows only with `text`."""
    log: bool = True
    """The prediction log. Without it no answer takes feedback, and no release can be judged."""
    log_queue_rows: Annotated[int, Field(ge=1)] = 50_000
    """Rows that may wait to be logged; more are dropped and counted, and no request waits."""
    log_keep_days: Annotated[int, Field(ge=1)] = 30
    """Days of the log in the store, where feedback finds them; older ones move to files."""
    log_keep_rows: Annotated[int, Field(ge=0)] = 2_000_000
    """Rows of the log in the store, about; the oldest move to files sooner when there are more."""
    log_max_bytes: Annotated[int, Field(ge=0)] = 10_000_000_000
    """Room for those files; the oldest days are deleted when they take more."""


class ReleaseTable(Table):
    policy: str = "shadow"
    """Rule that decides on a release."""
    scope: Literal["task", "channels"] = "task"
    """What a release is about: the whole task, or each channel by itself."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Error level of a decision, over all looks at the evidence."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A candidate worse by less than this share of the answers may take charge (shadow, ab); 0: it must be better. A
    canary then shows besides that it is not worse by as much."""
    labels: Literal["asked", "all"] = "asked"
    """Labels that decide (shadow): those `asked` for, or `all`, where the truth comes back whatever was answered."""
    ask_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the differing answers that reviewers are asked about (shadow)."""
    max_labels: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Labels that tell the two versions apart after which an exact test ends the release; 0: no end (shadow)."""
    guardrail_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Error level of each guardrail's limit, and of the check that requests fall to the arms as they should."""
    ramp: tuple[Annotated[float, Field(gt=0, le=50)], ...] = (1, 5, 10, 25, 50)
    """Percent of the units that meet the candidate, stage by stage; as many meet the control's slice (canary)."""
    dwell_requests: Annotated[int, Field(ge=1)] = 200
    """Requests to the candidate and to the control's slice before the next stage (canary)."""
    dwell_s: Annotated[float, Field(ge=0)] = 600
    """Time before the next stage (canary)."""
    min_labels: Annotated[int, Field(ge=0)] = 0
    """Labels of a candidate before it takes charge (canary, ab, bandit); 0: 150 a channel, in a canary 500 at least."""
    candidate_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the units that meet the candidate (ab)."""
    floor_share: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    """Least share of the units that meet each candidate (bandit)."""
    max_error_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Guardrail: requests that the candidate may fail."""
    max_timeout_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Guardrail: requests that the candidate may leave without an answer in time."""
    max_slow_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Guardrail: answers of the candidate that may be slow."""
    slowdown: Annotated[float, Field(ge=1)] = 1.5
    """An answer is slow that takes so many times what 95 % of the control's answers take."""
    max_abstained_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Guardrail: requests of which the candidate may leave half of the rows without a label, span or text."""
    candidate_timeout_s: Annotated[float, Field(gt=0)] = 5
    """How long a candidate may take before the control answers instead."""
    keep_previous: bool = True
    """Workers keep the version that was in charge before, so that going back to it takes no time."""
    max_days: Annotated[float, Field(ge=0)] = 14
    """`loop run` stops a release that is not decided after so many days, once a newer version is due; 0: never."""
    max_drop_share: Share = 0.01
    """Gate before traffic: largest drop on held-out rows that is not chance, overall, in a channel and in a class."""
    min_agreement_share: Share = 0.97
    """Gate before traffic: agreement of the exported artifact with its checkpoint."""
    max_size_times: Annotated[float, Field(gt=0)] = 2.0
    """Gate before traffic: size of the candidate's files, over the control's."""
    max_size_bytes: Annotated[int, Field(ge=0)] = 0
    """Gate before traffic: size of the candidate's files; 0: no limit."""
    max_latency_times: Annotated[float, Field(gt=0)] = 2.0
    """Gate before traffic: time of the candidate for the same rows, over the control's."""
