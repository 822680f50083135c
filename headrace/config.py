"""`headrace.toml`: what a workspace is told, and where each value came from.

Order of strength: command line > environment (`HEADRACE_SERVE__PORT=9000`) > file > default. An unknown key is an
error that names the nearest known one. The hash of the resolved values is stored on every row.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from headrace.errors import BadConfig, nearest

FILE_NAME = "headrace.toml"
ENV_PREFIX = "HEADRACE_"
_NO_SETTINGS = {"HEADRACE_WORKSPACE"}  # variables that the command line reads
_WHOLE = {"descriptions"}  # tables whose keys are the user's own words, dots and all
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Share = Annotated[float, Field(ge=0, le=1)]


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
    """Format that is measured and served: openvino or hf."""
    precision: Literal["int8", "fp32"] = "int8"
    """Precision of the exported weights; hf writes fp32 only."""
    n_calibration: Annotated[int, Field(ge=10)] = 300
    """Rows of the training side that calibrate int8."""


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
    """Rows that may wait in the worker before requests are shed with 503."""
    timeout_s: Annotated[float, Field(gt=0)] = 30
    """Longest time that a request may wait for its answer."""
    n_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the worker; 0 lets the backend choose."""
    log_inputs: Literal["text", "hash"] = "text"
    """What the prediction log keeps of an input. Feedback becomes training rows only with `text`."""


class ReleaseTable(Table):
    policy: str = "shadow"
    """Rule that decides on a release."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Error level of a decision, over all looks at the evidence."""
    max_drop_share: Share = 0.01
    """Gate before traffic: largest drop of a channel's main metric on held-out rows whose interval excludes 0."""
    min_agreement_share: Share = 0.97
    """Gate before traffic: agreement of the exported artifact with its checkpoint."""


class FeedbackTable(Table):
    min_new_labels: Annotated[int, Field(ge=1)] = 50
    """`improve` starts a new version from this many labels on."""


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
    serve: ServeTable = ServeTable()
    release: ReleaseTable = ReleaseTable()
    feedback: FeedbackTable = FeedbackTable()

    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of all resolved values."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Shown:
    """One resolved value and where it came from: `default`, `file`, `environment` or `command line`."""

    key: str
    value: object
    source: str


def load(
    root: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[Shown]]:
    """Resolve the settings of the workspace at `root`.

    Args:
        overrides: dotted key to value, from the command line; None values are passed over.

    Raises:
        BadConfig: unreadable file, unknown key or unusable value.
    """
    sources: dict[str, str] = {}
    merged: dict[str, Any] = {}
    from_file = _from_file(root / FILE_NAME)
    for origin, values in (
        ("file", from_file),
        ("environment", _from_environ(os.environ if environ is None else environ, _tasks_in(from_file))),
        ("command line", {k: v for k, v in (overrides or {}).items() if v is not None}),
    ):
        for key, value in values.items():
            _place(merged, key, value if origin == "file" else _from_json(key, value), origin)
            sources[key] = origin
    _read_catalogues(root, merged, sources)
    settings = _validated(merged, sources)
    shown = [Shown(k, v, sources.get(k, "default")) for k, v in _flat(settings.model_dump(mode="json"))]
    return settings, shown


def _from_json(key: str, value: object) -> object:
    """What a list or table written as JSON in a variable or an option stands for; other values as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")) or not _holds_several(key):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{key} is not JSON: {error}", value=value, next_step='Write ["a", "b"]') from None


def _holds_several(key: str) -> bool:
    """Whether a setting is a list or a table."""
    parts = key.split(".")
    model: type[BaseModel] = Settings
    if parts[0] == "tasks":
        model, parts = TaskTable, parts[2:]
    for i, part in enumerate(parts):
        field = model.model_fields.get(part)
        if field is None:
            return False
        if isinstance(field.default, Table):
            model = type(field.default)
            continue
        kinds = [field.annotation, *get_args(field.annotation)]  # of `tuple[...] | None` too
        return i == len(parts) - 1 and any(get_origin(kind) in (tuple, list, dict) for kind in kinds)
    return False


def _read_catalogues(root: Path, merged: dict[str, Any], sources: dict[str, str]) -> None:
    """Put labels and descriptions where tasks name the file that has them."""
    tasks = merged.get("tasks")
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        if not isinstance(task, dict) or not isinstance(task.get("catalogue"), str) or not task["catalogue"]:
            continue
        if task.get("labels") or task.get("descriptions"):
            raise BadConfig(
                f"tasks.{name} has labels or descriptions beside its catalogue",
                value=task["catalogue"],
                next_step="Keep one: the catalogue is where they come from",
            )
        entries = read_catalogue(root / task["catalogue"])
        task["labels"], task["descriptions"] = list(entries), entries
        origin = sources[f"tasks.{name}.catalogue"]
        sources |= {f"tasks.{name}.labels": origin, f"tasks.{name}.descriptions": origin}


def read_catalogue(path: Path) -> dict[str, str]:
    """Label to text, in the order of the file; BadConfig where it is no catalogue."""
    entries: dict[str, str] = {}
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"the catalogue cannot be read: {error}", value=str(path), next_step="Correct `catalogue` or the file"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        label, text = (entry.get("label"), entry.get("text")) if isinstance(entry, dict) else (None, None)
        if not isinstance(label, str) or not isinstance(text, str) or not label.strip() or not text.strip():
            raise BadConfig(
                f"line {number} of the catalogue has no label and text",
                value=line[:200],
                next_step='Write {"label": "...", "text": "..."} in each line',
            )
        if label in entries:
            raise BadConfig(
                f"line {number} of the catalogue has a label of an earlier line",
                value=label,
                next_step="Give each entry a label of its own",
            )
        entries[label] = text
    return entries


def check_task_name(name: str) -> None:
    """Check that a task can be called `name`: it stands in keys, in URLs and in names of versions.

    Raises:
        BadConfig: it cannot.
    """
    if not _TASK_NAME.fullmatch(name):
        raise BadConfig(
            "a task's name is 1 to 64 letters, digits, dashes and underscores, a letter or digit first",
            value=name,
            next_step="Choose another name",
        )


def _validated(merged: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        origin = sources.get(key, "file")
        if first["type"] == "extra_forbidden":
            known = _keys_beside(first["loc"])
            raise BadConfig(
                f"unknown key in the {origin}", value=key, next_step=nearest(str(first["loc"][-1]), known)
            ) from None
        raise BadConfig(
            f"unusable value for {key} ({origin}): {first['msg'].lower()}",
            value=first.get("input"),
            next_step=f"Correct {key}; `headrace config show` prints every value",
        ) from None


def _keys_beside(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for i, part in enumerate(loc[:-1]):
        if part == "tasks":
            continue
        if i and loc[i - 1] == "tasks":
            model = TaskTable
            continue
        model = type(model.model_fields[part].default)
    return list(model.model_fields)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadConfig(f"{FILE_NAME} cannot be read: {error}", value=str(path), next_step="Correct the file") from None
    tasks = tree.get("tasks")
    for name in tasks if isinstance(tasks, dict) else ():
        check_task_name(name)
    return dict(_flat(tree))


def _tasks_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Lower-case name to name of the tasks that dotted keys speak of."""
    names = (key.split(".")[1] for key in values if key.startswith("tasks."))
    return {name.lower(): name for name in names}


def _from_environ(environ: Mapping[str, str], tasks: Mapping[str, str]) -> dict[str, Any]:
    """Dotted keys from variables. `tasks` gives the capitals that variables lack."""
    values: dict[str, Any] = {}
    for name, raw in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _NO_SETTINGS:
            continue
        if "__" not in name:
            raise BadConfig("unknown variable in the environment", value=name, next_step=nearest(name, _variables()))
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        if parts[0] == "tasks":
            parts[1] = tasks.get(parts[1], parts[1])
        values[".".join(parts)] = raw
    return values


def _variables() -> list[str]:
    keys = [key for key, _ in _flat(Settings().model_dump(mode="json")) if key != "tasks"]
    return [*_NO_SETTINGS, *(ENV_PREFIX + key.upper().replace(".", "__") for key in keys)]


def _place(tree: dict[str, Any], key: str, value: object, origin: str) -> None:
    *parents, leaf = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise BadConfig(
                f"{part} is a value elsewhere, and a table in the {origin}", value=key, next_step="Make them agree"
            )
    tree[leaf] = value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and key not in _WHOLE:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
