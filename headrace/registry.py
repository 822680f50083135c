"""Names to implementations, resolved on first use, so that listing names imports nothing.

A table maps a name to `"module:attribute"`. Other packages add names through entry points in the
group `headrace.<kind>`; a plug-in may not redefine a built-in name.
"""

from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from headrace.errors import AlreadyExists, MissingExtra, NotFound, nearest

EXTRAS = {  # top-level library -> the extra that installs it
    "torch": "train",
    "transformers": "train",
    "accelerate": "train",
    "peft": "train",
    "sentence_transformers": "train",
    "nncf": "train",
    "onnx": "train",
    "onnxscript": "train",
    "onnxruntime": "onnxruntime",
    "pyarrow": "train",
    "datasets": "train",
    "scipy": "train",
    "matplotlib": "train",
    "optuna": "train",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "psycopg": "postgres",
    "sqlcipher3": "encrypted",
    "s3fs": "s3",
}


def resolve(target: str, *, purpose: str = "this") -> Any:
    """Import `"module:attribute"`.

    Raises:
        MissingExtra: the module needs a library that is installed by an extra.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library in EXTRAS:
            raise MissingExtra(EXTRAS[library], library=library, purpose=purpose) from error
        raise


def require(*libraries: str, purpose: str) -> None:
    """Check that libraries are installed, without importing them, which can take seconds.

    Raises:
        MissingExtra: one is not.
    """
    for library in libraries:
        if find_spec(library) is None:
            raise MissingExtra(EXTRAS[library], library=library, purpose=purpose)


class Registry:
    """A table of names of one kind of plug-in."""

    def __init__(self, kind: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(builtin)
        self._found: dict[str, str] = {}  # what `targets` said last: asking installed packages takes milliseconds

    def targets(self) -> dict[str, str]:
        """Name to `"module:attribute"`, built-in and from entry points."""
        plugins = {e.name: e.value for e in entry_points(group=f"headrace.{self.kind}")}
        clash = sorted(plugins.keys() & self._builtin.keys())
        if clash:
            raise AlreadyExists(
                f"{self.kind} plug-ins redefine built-in names", value=clash, next_step="Rename them in their package"
            )
        self._found = {**self._builtin, **plugins}
        return dict(self._found)

    def names(self) -> list[str]:
        return sorted(self.targets())

    def get(self, name: str) -> Any:
        """The implementation called `name`.

        Raises:
            NotFound: no such name; the message has the nearest one.
            MissingExtra: its libraries are not installed.
        """
        targets = self._found if name in self._found else self.targets()
        if name not in targets:
            raise NotFound(f"unknown name in {self.kind}", value=name, next_step=nearest(name, sorted(targets)))
        return resolve(targets[name], purpose=f"{self.kind} {name!r}")
