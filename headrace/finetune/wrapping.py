"""The objective of a fine-tuning: the task's own loss, wrapped by what the settings and the method ask for."""

from headrace.checkpoints.network import Network
from headrace.finetune import robust
from headrace.finetune.checking import check_options
from headrace.finetune.crf import Crf, fresh_crf
from headrace.finetune.features import FeatureSet
from headrace.finetune.losses import criterion_of
from headrace.finetune.methods import Method, Plan
from headrace.finetune.objectives import Objective, Plain
from headrace.finetune.retrieval import objectives_of


def objective_of(plan: Plan, method: Method, network: Network, train: FeatureSet) -> tuple[Objective, Objective]:
    """What the validation side is measured by, and what is trained on; a CRF is put into the network.

    Raises:
        BadConfig: a setting of the loss or of finetune.robust that does not go with the task or the method.
    """
    settings = plan.settings
    check_options(plan.task_type, settings, method)
    criterion = criterion_of(plan.task_type, settings.loss, train.features)
    plain: Objective = Plain(criterion)
    if settings.loss.crf:
        if network.crf is None:
            network.crf = fresh_crf(network.n_outputs)
        plain = Crf()
    objective = plain
    if network.problem == "retrieval":
        plain, objective = objectives_of(plan, network)
    if method.objective is not None:
        objective = method.objective(objective, plan)
    return plain, robust.hardened(objective, settings.robust)
