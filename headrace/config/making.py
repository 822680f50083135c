"""From rows to a version: the store, tasks, data, fine-tuning, export, compression."""

from typing import Annotated, Literal

from pydantic import Field

from headrace.config.table import Share, Table


class StoreTable(Table):
    url: str = ""
    """Database URL; empty means SQLite in `.headrace/headrace.db`."""
    busy_timeout_s: Annotated[float, Field(ge=0)] = 60
    """How long a writer waits for another process's write."""
    key_file: str = ""
    """File of the key that encrypts the database, 96 hexadecimal digits, outside the workspace; empty: it is plain."""


class ArtifactsTable(Table):
    url: str = ""
    """fsspec URL of the artifact store; empty means `.headrace/artifacts`."""


class TaskTable(Table):
    type: str = "text-classification"
    """Task type: a name of docs/tasks/."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the model's outputs; entity types, for token-classification."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """Label to what it means in words (zero-shot), or to the text that is found (retrieval)."""
    catalogue: str = ""
    """File of JSON lines with `label` and `text`, beside headrace.toml: labels and their descriptions (retrieval)."""
    input: Literal["text", "turns"] = "text"
    """turns: conversations, lists of {role, text}; what is too long loses its oldest turns."""
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Numbers at most this far apart agree, in the unit of the labels (text-regression)."""
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
    replay_share: Share = 1.0
    """With finetune.start: rows that it has learnt already, as a share of them; the rest is left out."""


class PerChannelTable(Table):
    rank: Annotated[int, Field(ge=1, le=64)] = 8
    """Rank of the low-rank updates of a channel's adapter."""
    targets: tuple[str, ...] = ()
    """Last names of the linear layers that adapters update; none: query and value of attention."""
    frozen_layers: Annotated[int, Field(ge=0)] | None = None
    """Lowest layers that adapters leave as they are, unless `targets` has a path in them; None: half of them."""
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
    min_steps: Annotated[int, Field(ge=0)] | None = None
    """Few rows make few steps an epoch; epochs are added until there are this many. None: 60, or 3 for each class."""
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
    """Evaluations after the warm-up, with neither a better metric nor a lower loss, before training stops."""
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
    start: str = ""
    """Version whose weights are the start, in place of the base model's; control: the one in charge."""
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
