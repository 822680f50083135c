"""Prompt tuning: vectors of new tokens before the text train, and the head; at the end they are tokens like others.

The new tokens are `finetune.adapter.n_virtual_tokens` entries of the vocabulary, which the tokenizer puts before every
text. They start as the embeddings of the training texts' most frequent tokens. They count towards the task's
`max_tokens`.

Requirements: peft; a tokenizer with a tokenizer.json that closes texts by a template. Cost: n_virtual_tokens x model
width weights; every text is that many tokens longer, also in serving.
Source: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691.
"""

import json
from collections import Counter
from typing import Any

import torch
from peft import TrainableTokensConfig
from tokenizers import AddedToken, Tokenizer

from headrace.checkpoints.network import Network
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import merge, wrap

_ROOM = 4  # the prompt may take one part in this of max_tokens; windows overlap by as much
_N_COUNTED = 2000  # texts in which tokens are counted

Piece = dict[str, Any]


def check(task: TaskTable, settings: FinetuneTable) -> None:
    """Refuse a prompt that leaves too little room for the text.

    Raises:
        BadInput: it takes more than a quarter of `max_tokens`.
    """
    n_tokens, max_tokens = settings.adapter.n_virtual_tokens, task.max_tokens
    if n_tokens > max_tokens // _ROOM:
        raise BadInput(
            f"a prompt may take a quarter of max_tokens, which is {max_tokens // _ROOM}",
            value=f"finetune.adapter.n_virtual_tokens = {n_tokens}",
            next_step="Set it lower, or max_tokens of the task higher",
        )


def prepare(network: Network, plan: Plan) -> Network:
    check(plan.task, plan.settings)
    n_tokens = plan.settings.adapter.n_virtual_tokens
    frequent = _frequent(plan)
    ids = _add_prompt(plan.tokenizer, n_tokens)
    embeddings = network.model.get_input_embeddings()
    n_rows = max(embeddings.num_embeddings, ids[-1] + 1)
    if n_rows > embeddings.num_embeddings:
        network.model.resize_token_embeddings(n_rows, mean_resizing=False)
        embeddings = network.model.get_input_embeddings()
    with torch.no_grad():
        for i, token in enumerate(ids):
            embeddings.weight[token] = embeddings.weight[frequent[i % len(frequent)]]
    return wrap(network, TrainableTokensConfig(token_indices=ids))


def _frequent(plan: Plan) -> list[int]:
    """Ids of tokens of the training texts, the most frequent first."""
    backend = _backend(plan.tokenizer)
    texts = [row.text for row in plan.train[:: max(1, len(plan.train) // _N_COUNTED)]]
    encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    counts = Counter(token for encoding in encodings for token in encoding.ids)
    return [token for token, _ in counts.most_common()] or [0]


def _backend(tokenizer: Any) -> Any:
    found = getattr(tokenizer, "backend_tokenizer", None)
    if found is None:
        raise BadInput(
            "prompt needs a base model whose tokenizer has a tokenizer.json",
            value=type(tokenizer).__name__,
            next_step="Choose method lora, or another base model",
        )
    return found


def _add_prompt(tokenizer: Any, n_tokens: int) -> list[int]:
    """Have a tokenizer put new tokens before every text; their ids."""
    names = [f"[PROMPT{i}]" for i in range(n_tokens)]
    backend = _backend(tokenizer)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    ids: list[int] = tokenizer.convert_tokens_to_ids(names)
    state = json.loads(backend.to_str())
    state["post_processor"] = with_prompt(state.get("post_processor"), dict(zip(names, ids, strict=True)))
    backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    return ids


def with_prompt(closing: Piece | None, prompt: dict[str, int]) -> Piece:
    """The `post_processor` of a tokenizer.json, with tokens (name to id) before the first text.

    What stands before the text stays first: heads read the first token.

    Raises:
        BadInput: closes texts in another way than by a template.
    """
    kind = None if closing is None else closing["type"]
    if closing is None or kind == "ByteLevel":
        single = [_sequence("A")]
        template = _template(single, [*single, _sequence("B", 1)], {})
        with_it = with_prompt(template, prompt)
        return with_it if closing is None else {"type": "Sequence", "processors": [closing, with_it]}
    if kind == "Sequence":
        *before, last = closing["processors"]
        return {"type": "Sequence", "processors": [*before, with_prompt(last, prompt)]}
    if kind == "TemplateProcessing":
        tokens = {name: {"id": name, "ids": [token], "tokens": [name]} for name, token in prompt.items()}
        special = closing["special_tokens"] | tokens
        single, pair = (_with_pieces(closing[part], list(prompt)) for part in ("single", "pair"))
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return with_prompt(_as_template(closing), prompt)
    raise BadInput(
        "prompt does not know how this base model's tokenizer closes texts",
        value=kind,
        next_step="Choose method prefix or lora, or another base model",
    )


def _with_pieces(pieces: list[Piece], names: list[str]) -> list[Piece]:
    place = next(i for i, piece in enumerate(pieces) if "Sequence" in piece)
    return [*pieces[:place], *(_special(name) for name in names), *pieces[place:]]


def _as_template(closing: Piece) -> Piece:
    """The fixed forms of BERT and RoBERTa as a template."""
    (end, end_id), (start, start_id) = closing["sep"], closing["cls"]
    tokens = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ((start, start_id), (end, end_id))}
    single = [_special(start), _sequence("A"), _special(end)]
    if closing["type"] == "BertProcessing":
        return _template(single, [*single, _sequence("B", 1), _special(end, 1)], tokens)
    made = _template(single, [*single, _special(end), _sequence("B"), _special(end)], tokens)
    offsets = {"add_prefix_space": closing["add_prefix_space"], "trim_offsets": closing["trim_offsets"]}
    return {"type": "Sequence", "processors": [{"type": "ByteLevel", **offsets, "use_regex": True}, made]}


def _template(single: list[Piece], pair: list[Piece], special_tokens: Piece) -> Piece:
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special_tokens}


def _sequence(name: str, type_id: int = 0) -> Piece:
    return {"Sequence": {"id": name, "type_id": type_id}}


def _special(name: str, type_id: int = 0) -> Piece:
    return {"SpecialToken": {"id": name, "type_id": type_id}}


METHOD = Method(learning_rate=1e-2, prepare=prepare, finish=merge, check=check, starts_warm=False)
