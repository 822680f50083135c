"""(IA)3: a factor for every key, value and neuron of the feed-forward blocks trains, and the head; merged at the end.

Requirements: peft. Cost: gradients and moments for about 0.1 % of the weights.
Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
arXiv 2205.05638, section 3.3.
"""

from peft import IA3Config

from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import merge, wrap
from headrace.finetune.methods.parts import layers_of, linear_names, narrowing

_KEYS_AND_VALUES = frozenset(
    {"key", "value", "k_lin", "v_lin", "k_proj", "v_proj", "key_proj", "value_proj", "Wqkv", "in_proj"}
)
"""What models call them; where one layer makes the queries too, those are scaled as well."""


def prepare(network: Network, plan: Plan) -> Network:
    names = {id(module): name for name, module in network.model.named_modules()}
    attention, forward = [], []
    for layer in layers_of(network):
        own = [part for name, part in linear_names(layer).items() if name.rpartition(".")[2] in _KEYS_AND_VALUES]
        if not own:
            raise BadInput(
                "ia3 does not know the keys and values of this base model's layers",
                value=type(layer).__name__,
                next_step="Choose method lora or full, or another base model",
            )
        attention += [names[id(part)] for part in own]
        forward.append(names[id(layer.get_submodule(narrowing(layer)))])
    return wrap(network, IA3Config(target_modules=[*attention, *forward], feedforward_modules=forward))


METHOD = Method(learning_rate=2e-2, prepare=prepare, finish=merge)
