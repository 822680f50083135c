"""Freeze: the embeddings and the lower `finetune.frozen_layers` layers are frozen; the upper layers and the head train.

Requirements: none beyond transformers. Cost: no backward pass below the lowest layer that trains.
Source: Lee et al. 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", arXiv 1911.03090.
"""

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.parts import layers_of, n_frozen_layers, train_head


def prepare(network: Network, plan: Plan) -> Network:
    layers = layers_of(network)
    n_frozen = n_frozen_layers(plan.settings.frozen_layers, len(layers), setting="finetune.frozen_layers")
    trains = [p for layer in layers[n_frozen:] for p in layer.parameters()]
    places = {id(parameter): place for place, parameter in enumerate(network.encoder.parameters())}
    lowest = min((places[id(parameter)] for parameter in trains), default=len(places))
    for place, parameter in enumerate(network.encoder.parameters()):  # what follows the layers, such as a norm, trains
        parameter.requires_grad = place >= lowest
    train_head(network)
    return network


METHOD = Method(learning_rate=3e-4, prepare=prepare)
