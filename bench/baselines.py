"""What methods are shown beside: answers of scikit-learn on the same rows, and figures that were published.

Baselines give outputs as models do, so that the task type itself measures them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.corpora import Corpus
from headrace.evaluate.baselines import majority
from headrace.records import SnapshotRow
from headrace.tasks import Outputs, TaskType, TokenLogits

TF_IDF, WORD_SHAPE, MAJORITY = "TF-IDF + logistic regression", "word shape + logistic regression", "majority"


@dataclass(frozen=True)
class Published:
    """A figure from the literature, on the published test side."""

    corpus: str
    model: str
    figure: str
    value: float
    source: str


# Of the papers of the two sets of intents only abstracts could be read, no tables. Where a figure with a source that
# could be read stands in their place, theirs are left out; the three on ten rows a class stay, and say so.
_CASANUEVA = "Casanueva et al. 2020, arXiv 2003.04807, table 2; quoted from memory, not checked"
_NADO = "Nado et al. 2021, arXiv 2106.04015: github.com/google/uncertainty-baselines, clinc_intent"
_BANKING_CARD = "a model card, 3 epochs at 5e-5: huggingface.co/Kirie/test-bert-base-banking77"
_BERTWEET = "Nguyen et al. 2020, arXiv 2005.10200; BERT-base's size, pre-trained on tweets"
_CARD = "a model card, 2 epochs at 2e-5: huggingface.co/PabloGuinea/bert-base"
_DISTIL_CARD = "a model card, 2 epochs at 2e-5: huggingface.co/codeSlang/distilBert"
_BTC_CARD = "a model card of T-NER, 2,000 test rows: huggingface.co/tner/roberta-large-btc"
PUBLISHED = (
    Published("clinc150", "BERT-base, published", "accuracy", 0.977, _NADO),
    Published("clinc150-10", "BERT-large tuned, published", "accuracy", 0.9193, _CASANUEVA),
    Published("banking77", "BERT-base uncased, published", "accuracy", 0.9308, _BANKING_CARD),
    Published("banking77-10", "BERT-large tuned, published", "accuracy", 0.8342, _CASANUEVA),
    Published("banking77-10", "BERT-large fixed, published", "accuracy", 0.6755, _CASANUEVA),
    Published("wnut17", "BERTweet-base, published", "entity F1", 0.565, _BERTWEET),
    Published("wnut17", "BERT-base uncased, published", "entity F1", 0.331, _CARD),
    Published("wnut17", "DistilBERT uncased, published", "entity F1", 0.452, _DISTIL_CARD),
    Published("btc", "RoBERTa-large, published", "entity F1", 0.837, _BTC_CARD),
)


def names_for(problem: str) -> list[str]:
    """The baselines that a problem has."""
    return {"single_label_classification": [MAJORITY, TF_IDF], "token_classification": [WORD_SHAPE]}.get(problem, [])


def answers(name: str, corpus: Corpus, task_type: TaskType, *, seed: int) -> tuple[Outputs, int]:
    """Outputs on the test side, and the number of trained parameters."""
    return _BASELINES[name](corpus, task_type, seed)


def _majority(corpus: Corpus, task_type: TaskType, seed: int) -> tuple[Outputs, int]:
    outputs = majority(task_type, [row.target for row in corpus.side("train")], n=len(corpus.side("test")))
    assert outputs is not None
    return outputs, 0


def _tf_idf(corpus: Corpus, task_type: TaskType, seed: int) -> tuple[Outputs, int]:
    """Words of 1 and 2, characters of 2 to 5 within words, logarithmic counts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    train, test = corpus.side("train"), corpus.side("test")
    # C = 10: unit-length texts need a weaker penalty than scikit-learn's own, or few-shot answers stay near uniform
    model = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=300, random_state=seed))
    model.fit([row.text for row in train], task_type.encode_targets([row.target for row in train]))
    head = model[-1]
    outputs = _placed(model.predict_log_proba([row.text for row in test]), head.classes_, task_type.n_outputs)
    return outputs, int(head.coef_.size + head.intercept_.size)


def _word_shape(corpus: Corpus, task_type: TaskType, seed: int) -> tuple[Outputs, int]:
    """Each word's tag from the word, its shape and its neighbours; no tag knows of another."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, test = corpus.side("train"), corpus.side("test")
    seen = [features for row in train for features in _described(row)]
    tags = np.concatenate([task_type.tags_of(row.target, _spans(row.text)) for row in train])  # type: ignore[attr-defined]
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10, max_iter=300, random_state=seed))
    model.fit(seen, tags)
    head = model[-1]
    outputs = np.empty(len(test), dtype=object)
    for i, row in enumerate(test):
        scores = _placed(model.predict_log_proba(_described(row)), head.classes_, task_type.n_outputs)
        spans = _spans(row.text)
        outputs[i] = TokenLogits(row.text, spans, scores, np.zeros(len(spans), dtype=np.int32))
    return outputs, int(head.coef_.size + head.intercept_.size)


def _described(row: SnapshotRow) -> list[dict[str, Any]]:
    words = row.text.split(" ")
    shown = [_shape(word) for word in words]
    found = []
    for i, own in enumerate(shown):
        features: dict[str, Any] = {"first": i == 0, **{f"here {k}": v for k, v in own.items()}}
        for name, place in (("before", i - 1), ("after", i + 1)):
            if 0 <= place < len(words):
                features |= {f"{name} {k}": v for k, v in shown[place].items()}
        found.append(features)
    return found


def _shape(word: str) -> dict[str, Any]:
    kinds = "".join("X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in word)
    pressed = "".join(c for i, c in enumerate(kinds) if i == 0 or kinds[i - 1] != c)
    return {"word": word.lower(), "end": word[-3:].lower(), "start": word[:3].lower(), "shape": pressed[:6]}


def _spans(text: str) -> Any:
    """(W, 2) characters of the words between single spaces."""
    ends = np.cumsum([len(word) + 1 for word in text.split(" ")]) - 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    return np.stack([starts, ends], axis=1).astype(np.int32)


def _placed(scores: Any, classes: Sequence[int], n_outputs: int) -> Any:
    """Scores (N, K) from those of the classes that were seen."""
    placed = np.full((len(scores), n_outputs), -50.0, dtype=np.float32)
    placed[:, classes] = scores
    return placed


_BASELINES: dict[str, Callable[[Corpus, TaskType, int], tuple[Outputs, int]]] = {
    MAJORITY: _majority,
    TF_IDF: _tf_idf,
    WORD_SHAPE: _word_shape,
}
