"""Everything `headrace.toml` can say: its tables, their keys, bounds and defaults.

The string below a key says what it means; docs/configuration.md is made of them. Where values come from is the
business of config_sources.py.
"""

import hashlib
import json
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

Share = Annotated[float, Field(ge=0, le=1)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Meaning = Literal["right", "wrong", "none"]
"""What an event says of the answer."""


class Table(BaseModel):
    """A table of headrace.toml: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("true and false are no value here")
        return value


class StoreTable(Table):
    url: str = ""
    """Database URL; empty means SQLite in `.headrace/headrace.db`."""
    busy_timeout_s: Annotated[float, Field(ge=0)] = 60
    """How long a writer waits for another process's write."""


class ArtifactsTable(Table):
    url: str = ""
    """fsspec URL of the artifact store; empty means `.headrace/artifacts`."""


class TaskTable(Table):
    type: str = "text-classification"
    """Task type: a name of docs/tasks/."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the model's outputs; entity types, for token-classification."""
    descriptions: dict[str, str] = {}
    """Label to what it means in words (zero-shot), or to the text that is found (retrieval)."""
    catalogue: str = ""
    """File of JSON lines with `label` and `text`, beside headrace.toml: labels and their descriptions (retrieval)."""
    input: Literal["text", "turns"] = "text"
    """turns: conversations, lists of {role, text}; what is too long loses its oldest turns."""
    base_model: str = "minilm-l6"
    """A built-in name, a local directory or a Hugging Face hub name."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 128
    """Longer inputs are cut here, in training and in serving; tasks on tokens read them in windows instead."""


class DataTable(Table):
    max_chars: Annotated[int, Field(ge=1)] = 20_000
    """A longer text goes to quarantine."""
    near_duplicate_share: Share = 0.8
    """Jaccard similarity of word shingles from which two texts count as near duplicates."""


class SplitTable(Table):
    validation_share: Share = 0.1
    """Groups that training stops by, and that the temperature is fitted on."""
    test_share: Share = 0.2
    """Groups that versions are measured on and never trained on."""
    salt: str = "headrace"
    """Seeds the hash that decides. Groups that have a side keep it."""


class LossTable(Table):
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class weighs the inverse of its share of the training rows."""
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Focal loss: rows that are answered well count less; 0 is cross-entropy."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's probability that is spread over all classes."""
    crf: bool = False
    """token-classification: a linear-chain CRF over the tags."""


class AdapterTable(Table):
    rank: Annotated[int, Field(ge=1, le=512)] = 8
    """Rank of low-rank updates (lora, dora, adalora)."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """Scale of low-rank updates, over the rank."""
    dropout: Share = 0.0
    """Dropout before low-rank updates."""
    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Neurons of a bottleneck (adapter)."""
    n_virtual_tokens: Annotated[int, Field(ge=1, le=512)] = 20
    """Trained tokens before the text (prompt) or in every layer (prefix)."""


class RobustTable(Table):
    adversarial: Literal["none", "fgm", "pgd", "freelb"] = "none"
    """Train also on embeddings moved to where the loss grows."""
    adversarial_norm: Annotated[float, Field(gt=0)] = 0.3
    """Length of that move, per row."""
    adversarial_steps: Annotated[int, Field(ge=1, le=20)] = 3
    """Steps of that move (pgd, freelb)."""
    rdrop_weight: Annotated[float, Field(ge=0)] = 0.0
    """R-Drop: weight of the distance between two passes with different dropout; needs finetune.dropout above 0."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Mixup of the vectors that the head reads: parameter of the Beta distribution; 0 is off."""


class AugmentTable(Table):
    kinds: tuple[Literal["swap", "delete", "synonym", "back-translation"], ...] = ()
    """Changed copies of training texts: words swapped or deleted, replaced by the base model's guess, or translated."""
    share: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Copies, as a share of the training rows."""
    word_share: Share = 0.1
    """Words of a copy that are changed (swap, delete, synonym)."""
    translators: tuple[str, ...] = ()
    """Two translation models, there and back: local directories or Hugging Face names (back-translation)."""


class SamplingTable(Table):
    channels: Literal["natural", "equal", "temperature"] = "natural"
    """How often a channel's rows come in an epoch: as often as there are, all channels alike, or between the two."""
    temperature: Annotated[float, Field(ge=1)] = 2.0
    """A channel's share is its natural one to the power 1 / temperature."""
    replay_share: Share = 0.0
    """Rows of older snapshots that the newest has no more, as a share of its training rows."""


class PerChannelTable(Table):
    rank: Annotated[int, Field(ge=1, le=64)] = 8
    """Rank of the low-rank updates of a channel's adapter."""
    targets: tuple[str, ...] = ()
    """Last names of the linear layers that adapters update; none: query and value of every attention layer."""
    epochs: Annotated[float, Field(gt=0)] = 5
    """Passes over each channel's training rows."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest rate of the steps of an adapter."""
    pull: Annotated[float, Field(ge=0)] = 100.0
    """How strongly an adapter is drawn to the shared model; divided by the channel's training rows."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Chance that any channel keeps an adapter that does not help it; 1 keeps whatever is better on the mean."""
    min_rows: Annotated[int, Field(ge=1)] = 5
    """Training rows from which a channel gets an adapter to be tried."""


class FinetuneTable(Table):
    method: str = "full"
    """What trains: a name of docs/methods.md."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the training side, at most."""
    min_steps: Annotated[int, Field(ge=0)] = 60
    """Few rows make few steps an epoch; epochs are added until there are this many."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """None: the method's own default, 200 times that for sgd."""
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    """What turns gradients into steps."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    batch_tokens: Annotated[int, Field(ge=16)] = 1024
    """Padded tokens in one training batch, over all processes."""
    accumulate_batches: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients make one step."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """The optimizer's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer learns at this share of the rate of the layer above it."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises from 0; it falls to 0 after."""
    dropout: Share = 0.0
    """Few epochs of a small model do not need it, and drawing the masks costs a fifth of the time on CPU."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are cut to this norm."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Evaluations on the validation side without gain before training stops."""
    evals_per_epoch: Annotated[int, Field(ge=1)] = 2
    """Evaluations, and so checkpoints, in an epoch."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor has instructions for it."""
    seed: int = 1
    """Same seed, same rows, same settings: same weights on the same machine."""
    frozen_layers: Annotated[int, Field(ge=0)] | None = None
    """Lower layers that do not train (freeze); None: half of them."""
    cache_bytes: Annotated[int, Field(ge=0)] = 2_000_000_000
    """Disk for the outputs of frozen layers, computed once (freeze, head); 0: computed in every epoch."""
    teacher: str = ""
    """Version whose answers are learnt (distil)."""
    student_layers: Annotated[int, Field(ge=1)] | None = None
    """Layers of the base model that a student keeps (distil); None: half of them."""
    distil_temperature: Annotated[float, Field(gt=0)] = 2.0
    """Softens the teacher's answers (distil)."""
    pretrain_epochs: Annotated[float, Field(gt=0)] = 1
    """Passes of masked-word training over all texts of the channels (continue-pretraining)."""
    pretrain_then: str = "full"
    """The method after that (continue-pretraining)."""
    tracker: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Where Trainer reports its curves."""
    loss: LossTable = LossTable()
    adapter: AdapterTable = AdapterTable()
    robust: RobustTable = RobustTable()
    augment: AugmentTable = AugmentTable()
    sampling: SamplingTable = SamplingTable()
    per_channel: PerChannelTable = PerChannelTable()


class SearchTable(Table):
    learning_rate: tuple[float, float] | None = None
    """Lowest and highest rate tried; None: a fifth to five times the method's own."""
    epochs: tuple[float, float] = (1, 6)
    """Fewest and most epochs tried."""
    batch_tokens: tuple[int, ...] = (512, 1024, 2048)
    """Batch sizes tried."""
    methods: tuple[str, ...] = ()
    """Methods tried; none: finetune.method alone."""
    seed: int = 1
    """Seeds the proposals."""


class ExportTable(Table):
    backend: str = "openvino"
    """Format that is measured and served: openvino, onnxruntime or hf (torch; on a GPU where there is one)."""
    precision: Literal["int8", "fp32", "bf16"] = "int8"
    """Precision of the exported weights: int8 or fp32 for openvino and onnxruntime, fp32 or bf16 for hf."""
    n_calibration: Annotated[int, Field(ge=10)] = 300
    """Rows of the training side that calibrate int8."""


class CompressTable(Table):
    ways: tuple[str, ...] = (
        "vocabulary=1",
        "heads=0.5",
        "feed-forward=0.5",
        "layers=0.67",
        "layers=0.5",
        "layers=0.67+feed-forward=0.5+vocabulary=1",
        "layers=0.5+feed-forward=0.5+vocabulary=1",
    )
    """Candidates: ways of docs/compress.md with the share that stays, joined by + where one has several."""
    max_drop: Annotated[float, Field(ge=0)] = 0.5
    """Points (hundredths of the main metric) that the chosen one may lose, overall and in every channel."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the training side in which what is left learns the uncompressed version's answers."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of that training; None: that of method distil."""


class ServeTable(Table):
    host: str = "127.0.0.1"
    """Address to listen at; this machine only, since there are no access keys yet."""
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
    """A candidate worse by less than this share of the answers may take charge (shadow, ab); 0: it must be better."""
    guardrail_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Error level of each guardrail's limit, and of the check that requests fall to the arms as they should."""
    ramp: tuple[Annotated[float, Field(gt=0, le=50)], ...] = (1, 5, 10, 25, 50)
    """Percent of the units that meet the candidate, stage by stage; as many meet the control's slice (canary)."""
    dwell_requests: Annotated[int, Field(ge=1)] = 200
    """Requests to the candidate and to the control's slice before the next stage (canary)."""
    dwell_s: Annotated[float, Field(ge=0)] = 600
    """Time before the next stage (canary)."""
    min_labels: Annotated[int, Field(ge=1)] = 50
    """Labelled answers of the candidate and of the control's slice before it takes charge (canary)."""
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
    burst_labels: Annotated[int, Field(ge=1)] = 50
    """Fewer corrections of a source within an hour are no burst."""
    burst_times: Annotated[float, Field(ge=1)] = 10.0
    """A burst is an hour in which a source is surely more than so many times as busy as before."""
    burst_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.0001
    """Error level of that."""
    window_days: Annotated[float, Field(gt=0)] = 30
    """Days after an answer in which feedback on it is taken; not longer than the log has it (serve.log_keep_days)."""
    metrics: dict[MetricName, MetricTable] = {}
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
    groups: dict[str, tuple[str, ...]] = {}
    """Groups whose accuracy is compared: names of channels, or `text:` or `key:` before a regular expression."""


class EraseTable(Table):
    retrain_days: Annotated[int, Field(ge=0)] = 30
    """Days after an erasure by which versions that used what was erased should be replaced."""


class Settings(Table):
    """Everything headrace.toml can say."""

    tasks: dict[str, TaskTable] = Field(default_factory=dict)
    store: StoreTable = StoreTable()
    artifacts: ArtifactsTable = ArtifactsTable()
    data: DataTable = DataTable()
    split: SplitTable = SplitTable()
    finetune: FinetuneTable = FinetuneTable()
    search: SearchTable = SearchTable()
    export: ExportTable = ExportTable()
    compress: CompressTable = CompressTable()
    serve: ServeTable = ServeTable()
    release: ReleaseTable = ReleaseTable()
    feedback: FeedbackTable = FeedbackTable()
    erase: EraseTable = EraseTable()
    advise: AdviseTable = AdviseTable()

    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of all resolved values."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_of(field: FieldInfo) -> type[Table] | None:
    """The table that a key is, or that each name below it is (`tasks.NAME`); None where it is a value."""
    if isinstance(field.default, Table):
        return type(field.default)
    kinds = get_args(field.annotation) if has_names(field) else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table)), None)


def has_names(field: FieldInfo) -> bool:
    """Whether the keys below are names that the user gives."""
    return get_origin(field.annotation) is dict
