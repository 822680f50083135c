"""The objective of a fine-tuning: the task's own loss, wrapped by what the settings and the method ask for."""

from headrace.checkpoints.network import Network
from headrace.finetune.features import FeatureSet
from headrace.finetune.losses import criterion_of
from headrace.finetune.methods import Method, Plan
from headrace.finetune.objectives import Objective, Plain


def objective_of(plan: Plan, method: Method, network: Network, train: FeatureSet) -> tuple[Objective, Objective]:
    """What the validation side is measured by, and what is trained on."""
    plain: Objective = Plain(criterion_of(plan.task_type, plan.settings.loss, train.features))
    objective = plain if method.objective is None else method.objective(plain, plan)
    return plain, objective
