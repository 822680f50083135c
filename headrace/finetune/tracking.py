"""Where Trainer's trackers write, as long as the environment does not say otherwise: .headrace/tracking."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def to(folder: Path, run_id: str) -> Iterator[None]:
    """Have trackers write below `folder`, or where the user's own variables say, for as long as this lasts.

    tensorboard: TENSORBOARD_LOGGING_DIR/RUN, by default FOLDER/RUN. mlflow: MLFLOW_TRACKING_URI, by default the
    database FOLDER/mlflow.db. wandb: its own server, with the files of its client in WANDB_DIR, by default FOLDER.
    """
    boards = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", folder))
    wanted = {
        "TENSORBOARD_LOGGING_DIR": str(boards / run_id),
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"),
        "MLFLOW_EXPERIMENT_NAME": os.environ.get("MLFLOW_EXPERIMENT_NAME", "headrace"),
        "WANDB_DIR": os.environ.get("WANDB_DIR", str(folder)),
        "WANDB_PROJECT": os.environ.get("WANDB_PROJECT", "headrace"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with _in_environment(wanted):
        yield


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Have TensorBoard show a stage before the training as a run of its own, in folder `name` of the run's: the steps
    of both count from 0."""
    board = os.environ.get("TENSORBOARD_LOGGING_DIR")
    with _in_environment({} if board is None else {"TENSORBOARD_LOGGING_DIR": str(Path(board) / name)}):
        yield


@contextmanager
def _in_environment(wanted: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
