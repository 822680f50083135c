"""Contrastive (SetFit): pairs of rows tune the vectors, like for the same label and unlike for others; then `head`.

For multi-label rows a pair is as like as its labels overlap (Jaccard). Of more than 2,000 training rows the first stage
takes 2,000, as evenly over the labels as they allow; the second takes all. A row of less weight than 1 is in the first
with that probability. Its optimiser, learning rate and batches are its own; `finetune.optimizer` and what stands
beside it count for the second. A stage that was killed starts again.

Requirements: sentence-transformers; two rows or more of most labels. Cost: two passes forward and backward a pair, at
most 40 pairs a row and 3,000 in all.
Relations: for few rows a label, and base models whose vectors were not trained this way already; `head` is its second
stage alone.
Source: Tunstall et al. 2022, "Efficient Few-Shot Learning Without Prompts", arXiv 2209.11055, section 3.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback

from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.head import METHOD as HEAD
from headrace.finetune.stages import StageWatcher, once
from headrace.finetune.training import computes_in_bf16
from headrace.records import Input, SnapshotRow

_MAX_ROWS = 2000
_PAIRS_A_ROW = 40  # 20 like and 20 unlike: the paper's R
_MAX_PAIRS = 3000
_BATCH_PAIRS = 16
_RATE = 2e-5
_N_DRAWS = 20  # of a row without a common label, before the last is taken as it is
Pair = tuple[int, int, float]
"""Two places of rows, and how like they are: 0 to 1."""


def first(plan: Plan) -> Path:
    """The directory of the tuned base model."""
    return once(plan.folder / "contrasted", partial(_tune, plan))


def pairs_of(labels: Sequence[frozenset[str]], n_pairs: int, *, seed: int) -> list[Pair]:
    """Pairs of rows: by turns with a label in common, if the row has a partner, and without."""
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[int]] = defaultdict(list)
    for place, own in enumerate(labels):
        for label in sorted(own):
            by_label[label].append(place)
    found = []
    for i in range(n_pairs):
        if i % (2 * len(labels)) == 0:
            order = rng.permutation(len(labels))
        one = int(order[i // 2 % len(labels)])
        shared = [place for label in sorted(labels[one]) for place in by_label[label] if place != one]
        if i % 2 == 0 and shared:
            other = int(rng.choice(shared))
        else:
            drawn = rng.integers(len(labels), size=_N_DRAWS)
            other = int(next((j for j in drawn if not labels[one] & labels[j]), drawn[-1]))
        found.append((one, other, _overlap(labels[one], labels[other])))
    return found


def balanced(rows: Sequence[SnapshotRow], n_rows: int, *, seed: int) -> list[SnapshotRow]:
    """At most `n_rows` rows, by turns one of each label; their order is that of `rows`."""
    if len(rows) <= n_rows:
        return list(rows)
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[int]] = defaultdict(list)
    for place in rng.permutation(len(rows)):
        by_label[min(_labels(rows[place]), default="")].append(int(place))
    turns = [(turn, label, place) for label, places in by_label.items() for turn, place in enumerate(places)]
    return [rows[place] for place in sorted(place for _, _, place in sorted(turns)[:n_rows])]


def thinned(rows: Sequence[SnapshotRow], *, seed: int) -> list[SnapshotRow]:
    """Each row with the probability of its weight, since pairs have none."""
    drawn = np.random.default_rng(seed).random(len(rows))
    return [row for row, number in zip(rows, drawn, strict=True) if number < row.weight]


def _labels(row: SnapshotRow) -> frozenset[str]:
    return frozenset([row.target] if isinstance(row.target, str) else row.target)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _tune(plan: Plan, folder: Path) -> None:
    import sentence_transformers as st
    from datasets import Dataset
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    rows = balanced(thinned(plan.train, seed=plan.settings.seed), _MAX_ROWS, seed=plan.settings.seed)
    n_pairs = min(_PAIRS_A_ROW * len(rows), _MAX_PAIRS)
    pairs = pairs_of([_labels(row) for row in rows], n_pairs, seed=plan.settings.seed)
    texts = [_joined(plan, row.input) for row in rows]
    columns = {
        "one": [texts[a] for a, _, _ in pairs],
        "other": [texts[b] for _, b, _ in pairs],
        "label": [likeness for _, _, likeness in pairs],
    }
    model = _sentence_transformer(plan)
    trainer = st.SentenceTransformerTrainer(
        model=model,
        args=_arguments(plan, folder),
        train_dataset=Dataset.from_dict(columns),
        loss=CoSENTLoss(model),
        callbacks=[StageWatcher("contrast", plan.report)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model[0].auto_model.float().cpu().save_pretrained(folder)
    plan.tokenizer.save_pretrained(folder)


def _joined(plan: Plan, given: Input) -> str:
    """A text; of a pair, both with the token between them that the base model knows."""
    return given if isinstance(given, str) else f" {plan.tokenizer.sep_token} ".join(given)


def _sentence_transformer(plan: Plan) -> Any:
    import sentence_transformers as st
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    options = {"dtype": torch.float32, "use_safetensors": True}
    transformer = Transformer(str(plan.base_folder), max_seq_length=plan.task.max_tokens, model_kwargs=options)
    assert transformer.tokenizer is not None
    transformer.tokenizer.truncation_side = "left" if plan.task.input == "turns" else "right"
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return st.SentenceTransformer(
        modules=[transformer, pooling],
        device="cuda" if torch.cuda.is_available() else "cpu",
        model_card_data=st.SentenceTransformerModelCardData(generate_widget_examples=False),
    )


def _arguments(plan: Plan, folder: Path) -> Any:
    import sentence_transformers as st

    return st.SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=_BATCH_PAIRS,
        learning_rate=_RATE,
        warmup_steps=0.1,
        bf16=computes_in_bf16(plan.settings),
        use_cpu=not torch.cuda.is_available(),
        seed=plan.settings.seed,
        save_strategy="no",
        logging_steps=10,
        logging_nan_inf_filter=False,  # it would show the mean of the steps before instead
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )


METHOD = Method(
    learning_rate=HEAD.learning_rate,
    prepare=HEAD.prepare,
    first=first,
    form="embedding",
    problems=frozenset({"single_label_classification", "multi_label_classification"}),
)
