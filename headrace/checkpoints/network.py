"""A model with its head for a task, as one function from token ids to logits.

Dimensions: B inputs, T tokens, D width of the model, K outputs of the task type.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

Form = Literal["head", "embedding"]


class Network(nn.Module):
    """A transformers (or peft) model in one of two forms.

    `head`: the head that transformers gives the task. `embedding`: the mean of the last layer's tokens at unit length,
    and one linear layer on it (`dense`); what sentence-transformers calls Transformer, Pooling, Normalize, Dense.
    """

    def __init__(self, model: Any, problem: str, n_outputs: int, *, dense: nn.Linear | None = None) -> None:
        super().__init__()
        self.model = model
        self.problem, self.n_outputs = problem, n_outputs
        self.dense = dense
        self.crf: nn.ParameterDict | None = None
        """token_classification: scores of going from tag to tag (`transitions` (K, K)), of `start` and `end` (K)."""

    @property
    def form(self) -> Form:
        return "head" if self.dense is None else "embedding"

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, *, embeds: bool = False
    ) -> Tensor:
        """Logits (B, K), or (B, T, K) for tasks on tokens, from ids and mask (B, T).

        Args:
            embeds: give the unit vectors (B, D) of the `embedding` form instead.
        """
        if self.dense is not None:
            vectors = self._embed(input_ids, attention_mask, token_type_ids)
            logits: Tensor = vectors if embeds else self.dense(vectors)
            return logits
        out = self._run(input_ids, attention_mask, token_type_ids)
        if self.problem == "question_answering":
            return torch.stack([out.start_logits, out.end_logits], dim=-1)
        scores: Tensor = out.logits
        return scores

    def _embed(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Source: mean pooling, Reimers and Gurevych 2019, "Sentence-BERT", section 3."""
        hidden = self._run(input_ids, attention_mask, token_type_ids).last_hidden_state.float()
        mask = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return nn.functional.normalize(mean, dim=1)

    def _run(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer: `dense`, or that of the task's head."""
        if self.dense is not None:
            return self.dense
        width = 2 if self.problem == "question_answering" else self.n_outputs
        found = [m for m in self.model.modules() if isinstance(m, nn.Linear) and m.out_features == width]
        return found[-1]

    @property
    def encoder(self) -> Any:
        """The base model without the task's head: what its embeddings and layers hang on."""
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return getattr(plain, plain.base_model_prefix, plain)

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder's layers, lowest first.

        Raises:
            LookupError: no list of as many modules as config.num_hidden_layers.
        """
        depth = self.config.num_hidden_layers
        for module in self.encoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
        raise LookupError(f"{type(self.encoder).__name__} has no list of {depth} layers")

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """What Trainer calls where settings ask for it."""
        self.model.activation_checkpointing_enable(**kwargs)
