"""Retrieval: the entry of a catalogue that answers a text, found by the cosine of their vectors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput, nearest
from headrace.records import Input
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray
from headrace.tasks.sums import as_json, share
from headrace.tasks.text_classification import check_labels

SCALE = 20.0
"""Logits are cosines times this, so that softmax tells entries apart; the default of sentence-transformers'
MultipleNegativesRankingLoss (Henderson et al. 2017, "Efficient Natural Language Response Suggestion", section 4.4)."""
_N_HITS = 5
_DEPTHS = (1, 5, 10)


class Retrieval:
    """The entry of a catalogue for a text, judged by mean reciprocal rank.

    Targets are ids of entries. Outputs (N, K) are SCALE times the cosine to each entry, in the order of the settings'
    labels. An entry that ties with the right one counts as before it, so that equal scores for all earn nothing.
    """

    name = "retrieval"
    problem = "retrieval"
    auto_class = "AutoModel"
    fields: tuple[str, ...] = ("text",)
    main_metric = "mrr"

    def __init__(self, settings: TaskTable) -> None:
        check_labels(settings.labels, at_least=2)
        without = [label for label in settings.labels if not settings.descriptions.get(label, "").strip()]
        if without:
            raise BadConfig(
                "a retrieval task needs the text of each of its labels",
                value=without,
                next_step='Set catalogue to a file of JSON lines {"label": "...", "text": "..."}',
            )
        self.output_names = list(settings.labels)
        self.entries = [settings.descriptions[label] for label in settings.labels]
        """Texts of the K entries."""
        self._index = {label: i for i, label in enumerate(settings.labels)}
        pairs = zip(self.entries, self.output_names, strict=True)
        self._by_text = {text.strip(): label for text, label in reversed(list(pairs))}

    @property
    def n_outputs(self) -> int:
        return len(self.output_names)

    def parse_label(self, raw: object, given: Input | None = None) -> str:
        """From the id of an entry or its exact text; of entries with the same text, the first."""
        written = str(raw).strip() if isinstance(raw, str | int) and not isinstance(raw, bool) else ""
        label = written if written in self._index else self._by_text.get(written)
        if label is None:
            raise BadInput(
                "neither the id nor the text of an entry", value=raw, next_step=nearest(str(raw), self.output_names)
            )
        return label

    def combine(self, targets: Sequence[str]) -> str:
        counts = Counter(targets)
        return max(counts, key=lambda label: (counts[label], -self._index[label]))

    def encode_targets(self, targets: Sequence[str]) -> NDArray[Any]:
        return np.asarray([self._index[target] for target in targets], dtype=np.int64)

    def calibrate(self, targets: Sequence[str], outputs: FloatArray) -> dict[str, Any]:
        """Nothing: a score is a cosine, and ranks need no more."""
        return {}

    def decode(self, outputs: FloatArray, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        """The first entry, and the first five as `hits`; `score` is the cosine."""
        answers = []
        for row in outputs:
            order = np.argsort(-row, kind="stable")[:_N_HITS]
            hits = [
                {"label": self.output_names[k], "text": self.entries[k], "score": round(float(row[k]) / SCALE, 6)}
                for k in order
            ]
            answers.append({**hits[0], "hits": hits})
        return answers

    def answer_of(self, output: Mapping[str, Any]) -> str:
        return str(output["label"])

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return bool(output["label"] == correction)

    def metrics(
        self, targets: Sequence[str], outputs: FloatArray, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        sums = self.row_counts(targets, outputs, calibration).sum(axis=0)
        return {"n": len(targets), **as_json(self.figures(sums))}

    def row_counts(
        self, targets: Sequence[str], outputs: FloatArray, calibration: Calibration = UNCALIBRATED
    ) -> NDArray[np.float64]:
        """(N, 6): right entry among the first 1, 5, 10; reciprocal rank; gain within the first 10; 1."""
        ranks = ranks_of(self.encode_targets(targets), outputs)
        gain = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)  # Järvelin and Kekäläinen 2002, one relevant entry
        return np.stack([*(ranks <= depth for depth in _DEPTHS), 1 / ranks, gain, np.ones(len(ranks))], axis=1)

    def figures(self, sums: FloatArray) -> dict[str, FloatArray]:
        names = [*(f"recall_at_{depth}" for depth in _DEPTHS), "mrr", "ndcg_at_10"]
        return {name: share(sums[..., i], sums[..., -1]) for i, name in enumerate(names)}


def ranks_of(truth: NDArray[Any], outputs: FloatArray) -> NDArray[np.int64]:
    """Rank (N,) from 1 of the right entry among outputs (N, K); ties count as before it."""
    own = outputs[np.arange(len(truth)), truth]
    ranks: NDArray[np.int64] = (outputs >= own[:, None]).sum(axis=1)
    return ranks
