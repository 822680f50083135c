"""Freeze: the embeddings and the lower `finetune.frozen_layers` layers are frozen; the upper layers and the head train.

Requirements: none beyond transformers. Cost: no backward pass below the lowest layer that trains.
Source: Lee et al. 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", arXiv 1911.03090.
"""

from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.parts import layers_of, train_head


def prepare(network: Network, plan: Plan) -> Network:
    layers = layers_of(network)
    n_frozen = n_frozen_layers(plan, len(layers))
    trains = [p for layer in layers[n_frozen:] for p in layer.parameters()]
    places = {id(parameter): place for place, parameter in enumerate(network.encoder.parameters())}
    lowest = min((places[id(parameter)] for parameter in trains), default=len(places))
    for place, parameter in enumerate(network.encoder.parameters()):  # what follows the layers, such as a norm, trains
        parameter.requires_grad = place >= lowest
    train_head(network)
    return network


def n_frozen_layers(plan: Plan, n_layers: int) -> int:
    """How many of the encoder's layers are frozen, counted from the lowest.

    Raises:
        BadInput: finetune.frozen_layers is more than there are.
    """
    wanted = plan.settings.frozen_layers
    if wanted is not None and wanted > n_layers:
        raise BadInput(
            f"the base model has {n_layers} layers",
            value=f"finetune.frozen_layers = {wanted}",
            next_step=f"Set finetune.frozen_layers to {n_layers} or less",
        )
    return n_layers // 2 if wanted is None else wanted


METHOD = Method(learning_rate=3e-4, prepare=prepare)
