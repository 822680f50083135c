"""Freeze: the embeddings and the lower `finetune.frozen_layers` layers are frozen; the upper layers and the head train.

Requirements: none beyond transformers. Cost: no backward pass below the lowest layer that trains.
Source: Lee et al. 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", arXiv 1911.03090.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.parts import layers_of, n_frozen_layers, output_of, states_in, train_head


def prepare(network: Network, plan: Plan) -> Network:
    layers = layers_of(network)
    n_frozen = n_frozen_layers(plan.settings.frozen_layers, len(layers), setting="finetune.frozen_layers")
    trains = [p for layer in layers[n_frozen:] for p in layer.parameters()]
    places = {id(parameter): place for place, parameter in enumerate(network.encoder.parameters())}
    lowest = min((places[id(parameter)] for parameter in trains), default=len(places))
    for place, parameter in enumerate(network.encoder.parameters()):  # what follows the layers, such as a norm, trains
        parameter.requires_grad = place >= lowest
    for parameter in _read_by(layers[:n_frozen], network):
        parameter.requires_grad = False
    train_head(network)
    return network


def _read_by(frozen: nn.ModuleList, network: Network) -> Iterable[nn.Parameter]:
    """What would train although frozen layers read it, such as the relative positions that all layers share."""
    trained = [p for p in network.encoder.parameters() if p.requires_grad]
    if not frozen or not trained:
        return []
    ids = torch.tensor([[1, 2, 3]], device=network.encoder.device)
    run = partial(network.encoder, input_ids=ids, attention_mask=torch.ones_like(ids))
    states = states_in(output_of(frozen[-1], run))
    if not states.requires_grad:
        return []
    slopes = torch.autograd.grad(states.sum(), trained, allow_unused=True)
    return [parameter for parameter, slope in zip(trained, slopes, strict=True) if slope is not None]


METHOD = Method(learning_rate=3e-4, prepare=prepare)
