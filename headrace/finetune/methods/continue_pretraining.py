"""Continue pre-training: guess masked words of the channels' texts, labelled or not; then a method on top.

The first stage has its own optimiser (AdamW), learning rate and objective: `finetune.optimizer`,
`finetune.learning_rate`, `finetune.robust` and `finetune.sampling` count for the method after it
(`finetune.pretrain_then`). TensorBoard shows it as a run of its own. A base model without a
head for masked words gets a fresh one, whose output weights are its embeddings. A kill costs at most a quarter of an
epoch.

Requirements: a base model with a mask token, and many texts of the domain. Cost: a pass forward and backward a text and
epoch, and V outputs for each token.
Relations: pays where the texts are unlike what the base model read; a sentence encoder may lose what it was tuned for.
Source: Gururangan et al. 2020, "Don't Stop Pretraining", arXiv 2004.10964, section 3; masks as in Devlin et al. 2019,
"BERT", section 3.1.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PrinterCallback,
    Trainer,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy

from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.finetune import tracking, training
from headrace.finetune.batching import Features, Padding, TokenBudgetSampler
from headrace.finetune.methods import METHODS, Method, Plan
from headrace.finetune.objectives import feed_of
from headrace.finetune.stages import StageWatcher, once
from headrace.tasks import TaskType

_MASKED_SHARE = 0.15
_SAVES_AN_EPOCH = 4


def then(task_type: TaskType, settings: FinetuneTable) -> str:
    """The method that goes on.

    Raises:
        BadConfig: this one again, or one that cannot do the task.
    """
    name = settings.pretrain_then
    method: Method = METHODS.get(name)
    if method.then is not None or task_type.problem not in method.problems:
        raise BadConfig(
            f"finetune.pretrain_then cannot be this method for a {task_type.name} task",
            value=name,
            next_step='Set finetune.pretrain_then = "full"',
        )
    return name


def first(plan: Plan) -> Path:
    """The directory of the base model that read on."""
    then(plan.task_type, plan.settings)
    if plan.tokenizer.mask_token_id is None:
        raise BadInput(
            "the base model has no mask token, so it cannot learn from unlabelled texts",
            value=plan.task.base_model,
            next_step="Choose a base model of the BERT family, or another finetune.method",
        )
    return once(plan.folder / "pretrained", partial(_pretrain, plan))


def _pretrain(plan: Plan, folder: Path) -> None:
    scratch = plan.folder / "pretrain"
    scratch.mkdir(parents=True, exist_ok=True)
    token_ids = _token_ids(plan)
    own = {"epochs": plan.settings.pretrain_epochs, "min_steps": 0, "optimizer": "adamw"}
    settings = plan.settings.model_copy(update=own)
    lengths = [len(ids) for ids in token_ids]
    sampler = TokenBudgetSampler(lengths, batch_tokens=settings.batch_tokens, seed=settings.seed)
    set_seed(settings.seed)
    model = _masked_model(plan)
    with tracking.stage("pretrain"):
        trainer = _MaskedTrainer(
            model=model,
            args=_arguments(scratch, settings, len(sampler)),
            sampler=sampler,
            masker=DataCollatorForLanguageModeling(plan.tokenizer, mlm_probability=_MASKED_SHARE),
            train_dataset=Features([{"input_ids": ids} for ids in token_ids]),
            data_collator=Padding(plan.tokenizer.pad_token_id or 0, "masked"),
            callbacks=[StageWatcher("pretrain", plan.report)],
        )
    trainer.remove_callback(PrinterCallback)
    resumed = training.newest_whole_checkpoint(scratch)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    _save_base(plan, model, folder)


def _masked_model(plan: Plan) -> Any:
    try:
        return AutoModelForMaskedLM.from_pretrained(plan.base_folder, use_safetensors=True, dtype=torch.float32)
    except ValueError:
        raise BadInput(
            "the base model is of a family that does not guess masked words",
            value=plan.task.base_model,
            next_step="Choose a base model of the BERT family, or another finetune.method",
        ) from None


def _save_base(plan: Plan, model: Any, folder: Path) -> None:
    """The base model with the new weights; what masked words do not touch, such as a pooler, as it was."""
    base = AutoModel.from_pretrained(plan.base_folder, use_safetensors=True, dtype=torch.float32)
    base.load_state_dict(model.base_model.cpu().state_dict(), strict=False)
    base.save_pretrained(folder)
    plan.tokenizer.save_pretrained(folder)


def _token_ids(plan: Plan) -> list[list[int]]:
    """Of every text once; the parts of a pair are texts of their own."""
    rows = [row.input for row in plan.train]
    parts = [part for one in rows for part in ((one,) if isinstance(one, str) else one)]
    plain = TaskTable(labels=("a", "b"), max_tokens=plan.task.max_tokens, input=plan.task.input)
    encoder = Encoder(standalone_tokenizer(plan.tokenizer, plain))
    return [window.encoding.ids for window in encoder.encode(list(dict.fromkeys([*plan.unlabelled, *parts])))]


def _arguments(folder: Path, settings: FinetuneTable, n_batches: int) -> Any:
    """Those of every training, without a validation side."""
    args = training.arguments(folder, settings, learning_rate=METHOD.learning_rate, n_batches=n_batches)
    args.eval_strategy = IntervalStrategy.NO
    args.load_best_model_at_end = False
    args.save_total_limit = 1
    args.run_name = f"{folder.parent.name}-pretrain"
    args.save_steps = max(1, n_batches // settings.accumulate_batches // _SAVES_AN_EPOCH)
    return args


class _MaskedTrainer(Trainer):
    """Trainer whose batches are of like length. Words are masked in its step, not while loading: the random numbers are
    then those that a checkpoint holds, and a resume is exact."""

    def __init__(self, *args: Any, sampler: TokenBudgetSampler, masker: Any, **kwargs: Any) -> None:
        self._sampler, self._masker = sampler, masker
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        features: Any = self.train_dataset
        loader = DataLoader(features, batch_sampler=self._sampler, collate_fn=self.data_collator)
        return prepare_data_loader(loader, device=self.args.device, num_processes=1, process_index=0)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        masked, labels = self._masker.torch_mask_tokens(inputs["input_ids"].cpu())
        feed = feed_of(inputs) | {"input_ids": masked.to(self.args.device)}
        if not (labels >= 0).any():  # of a few short texts none may be drawn
            labels = inputs["input_ids"].cpu()
        loss: torch.Tensor = model(**feed, labels=labels.to(self.args.device)).loss
        if not torch.isfinite(loss):
            raise training.DivergedError(self.state.global_step, float(loss), self.args.learning_rate)
        return loss


METHOD = Method(learning_rate=1e-4, first=first, then=then)
