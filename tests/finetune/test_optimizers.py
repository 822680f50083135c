"""Groups of parameters. Catches: layers whose rates do not fall, embeddings that learn as fast as the head, parameters
in no group or in two, under every architecture's own names."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from finetune import toy
from headrace.checkpoints.network import Network
from headrace.config import FinetuneTable
from headrace.errors import BadConfig
from headrace.finetune.crf import fresh_crf
from headrace.finetune.methods import Plan
from headrace.finetune.methods.ia3 import prepare as prepare_ia3
from headrace.finetune.methods.lora import prepare
from headrace.finetune.optimizers import parameter_groups
from headrace.finetune.running import tune
from headrace.tasks.text_classification import TextClassification

SMALL = {"vocab_size": 50, "num_labels": 3}
BERT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
CONFIGS = {
    "bert": (transformers.BertConfig, BERT),
    "roberta": (transformers.RobertaConfig, BERT),
    "distilbert": (transformers.DistilBertConfig, {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16}),
}


def _network(name: str) -> Network:
    kind, sizes = CONFIGS[name]
    model = transformers.AutoModelForSequenceClassification.from_config(kind(**SMALL, **sizes))
    return Network(model, "single_label_classification", 3)


def _rates(network: Network, layer_decay: float) -> dict[str, float]:
    names = {id(p): name for name, p in network.named_parameters()}
    groups = parameter_groups(network, 1.0, 0.1, layer_decay)
    found = [(names[id(p)], group["lr"]) for group in groups for p in group["params"]]
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert sorted(name for name, _ in found) == sorted(trained)
    return dict(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_rates_fall_from_the_head_to_the_embeddings(name: str) -> None:
    for parameter, rate in _rates(_network(name), 0.5).items():
        if "embeddings" in parameter:
            assert rate == 0.5**4, parameter
        elif ".layer." in parameter:
            layer = int(parameter.partition(".layer.")[2].partition(".")[0])
            assert rate == 0.5 ** (3 - layer), parameter
        else:
            assert rate == 1.0, parameter


def test_a_family_without_a_list_of_layers_has_no_rates_that_fall() -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(toy.FAMILIES["albert"])
    with pytest.raises(
        BadConfig, match=r"AlbertModel has no list of 2 layers.*Remove finetune\.layer_decay"
    ) as refused:
        parameter_groups(Network(model, "single_label_classification", 2), 1.0, 0.1, 0.5)
    assert refused.value.value == "finetune.layer_decay"


def test_rates_fall_under_peft_too(tiny_base: Path) -> None:
    plan = Plan(tiny_base, tiny_base, toy.TASK, TextClassification(toy.TASK), FinetuneTable(), None, [], [])
    rates = _rates(prepare(_network("bert"), plan), 0.5)
    assert {rate for name, rate in rates.items() if ".layer.0." in name and "lora" in name} == {0.125}
    assert {rate for name, rate in rates.items() if "classifier" in name} == {1.0}


def test_scores_of_a_crf_learn_faster_than_the_head() -> None:
    network = _network("bert")
    network.crf = fresh_crf(3)
    rates = _rates(network, 0.5)
    assert {rate for name, rate in rates.items() if name.startswith("crf.")} == {100.0}
    assert {rate for name, rate in rates.items() if "classifier" in name} == {1.0}


def test_matrices_decay_and_vectors_do_not() -> None:
    for group in parameter_groups(_network("bert"), 1.0, 0.1, 1.0):
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0.0)
        assert len({p.ndim > 1 for p in group["params"]}) == 1


def test_factors_of_ia3_do_not_decay(tiny_base: Path) -> None:
    """They are (n, 1) and start at 1: after 10,000 steps of decay alone .37 would be left of them."""
    plan = Plan(tiny_base, tiny_base, toy.TASK, TextClassification(toy.TASK), FinetuneTable(), None, [], [])
    config = transformers.BertConfig(**SMALL, **{**BERT, "intermediate_size": 32})
    network = Network(transformers.BertForSequenceClassification(config), "single_label_classification", 3)
    network = prepare_ia3(network, plan)
    names = {id(p): name for name, p in network.named_parameters()}
    decays = {names[id(p)]: g["weight_decay"] for g in parameter_groups(network, 1.0, 0.1, 1.0) for p in g["params"]}
    factors = {name for name in decays if "ia3_l" in name}
    assert len(factors) == 9  # three in each layer
    assert {decays[name] for name in factors} == {0.0}
    assert {decay for name, decay in decays.items() if name.endswith("classifier.weight")} == {0.1}


def _losses(base: Path, folder: Path, **options: Any) -> list[float]:
    settings = FinetuneTable(epochs=8, batch_tokens=128, patience=30, precision="fp32", evals_per_epoch=1, **options)
    tuned = tune(folder, base, toy.NER, settings, toy.ner_rows(), lambda *_a, **_f: None)
    assert tuned.facts["learning_rate"] == options["learning_rate"]
    return [entry["loss"] for entry in tuned.history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.5), ("adafactor", 2e-3), ("adamw", 5e-3)])
def test_every_optimizer_brings_the_loss_down(tiny_base: Path, tmp_path: Path, optimizer: Any, rate: float) -> None:
    losses = _losses(tiny_base, tmp_path, optimizer=optimizer, learning_rate=rate, layer_decay=0.9)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_adafactor_takes_the_rate_it_is_given(tiny_base: Path, tmp_path: Path) -> None:
    """Its own relative steps would pass over the rate: a rate of next to nothing must learn next to nothing."""
    losses = _losses(tiny_base, tmp_path, optimizer="adafactor", learning_rate=1e-9)
    assert sum(losses[-4:]) > 0.9 * sum(losses[:4])
