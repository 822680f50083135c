"""Hugging Face directories: which kinds of files they hold, and what their JSON says.

A directory is refused for what a library might do with it: classes of its own code (`auto_map`, *.py), kernels and
attention fetched by name, other models or files named by path, formats that run code when they are read. What remains
is weights, sizes and words. Keys are allowed by name, not refused by name: what the next release of a library makes of
a new key is not known here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.errors import Damaged
from headrace.files import safetensors_file
from headrace.files.config_keys import CONFIG_KEYS, TOKENIZER_KEYS
from headrace.files.names import inside, plain_files

CONFIG, TOKENIZER_CONFIG, ADAPTER, MODULES = (
    "config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "modules.json",
)
_INDEX = ".safetensors.index.json"
_KINDS = {".json", ".md", ".model", ".safetensors", ".spm", ".txt"}
_NAMES = {"LICENSE", "NOTICE", "whole"}
_TABLES = {"tokenizer.json", "vocab.json", "added_tokens.json", "decoding.json"}
"""Large or free in what they may say; read as tables of words and numbers alone."""
_MAX_JSON_BYTES, _MAX_TABLE_BYTES = 4 * 2**20, 256 * 2**20
_REFUSED = {
    "auto_map",
    "trust_remote_code",
    "chat_template",
    "quantization_config",
    "attn_implementation",
    "use_kernels",
}
"""At any depth of any file: what names code or has code fetched."""
_LABELS = {"id2label", "label2id"}
_TREES = {"rope_parameters", "rope_scaling", "task_specific_params", "pruned_heads", "attention_types"}
"""Keys of config.json that hold more than a value or a list of values."""
_PLAIN = re.compile(r"[\w.+|-]{0,100}")  # no path, no address, no name on a hub, which has a slash
_FREE = {"_name_or_path", "name_or_path", "special_tokens_map_file"}
"""What a library writes and never follows: where a model once lay."""
_SAVED = "The model's maker may have it elsewhere in plain form; or save it again with save_pretrained"


def check(folder: Path, *, root: Path | None = None) -> None:
    """Check a directory before a library reads it.

    Args:
        root: where links may lead to, such as the blobs of the hub's cache; None: there may be none.

    Raises:
        Damaged: a file of a kind that is not read, or one that says what it may not.
    """
    for name, path in plain_files(folder, root=root):
        if name.startswith("."):  # .gitattributes, .cache: no library looks there
            continue
        if path.suffix not in _KINDS and path.name not in _NAMES:
            raise _refused("a file of a kind that is never read here, for it may run code or bring files", path)
        if path.suffix == ".safetensors":
            safetensors_file.check(path)
        if path.suffix == ".json":
            _check_json(folder, path)
        if path.name == "chat_template.json":
            raise _refused("a template, which is code", path)


def _check_json(folder: Path, path: Path) -> None:
    n_bytes = path.stat().st_size
    if n_bytes > (_MAX_TABLE_BYTES if path.name in _TABLES else _MAX_JSON_BYTES):
        raise _refused("more than such a file holds", path)
    if path.name in _TABLES:
        return
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(f"no JSON that can be read: {error}", path) from None
    for key in _keys(said):
        if key in _REFUSED or (key.startswith("_") and key.endswith("_internal")):
            raise _refused(f"it names code or has it fetched: {key}", path)
    is_model = path.parent == folder or (isinstance(said, dict) and "model_type" in said)
    if path.name == CONFIG and is_model:  # a part of sentence-transformers has a config.json of its own kind
        _check_config(said, path)
    elif path.name == TOKENIZER_CONFIG:
        _check_tokenizer(said, path)
    elif path.name == ADAPTER:
        _check_adapter(said, path)
    elif path.name == MODULES:
        _check_modules(said, path)
    elif path.name.endswith(_INDEX):
        for part in set(_mapping(_mapping(said, path).get("weight_map"), path).values()):
            inside(path.parent, str(part))


def _keys(value: Any) -> Iterator[str]:
    """Every key at every depth but labels, which may be any words. Not recursive: JSON may be deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one
            waiting += [inner for key, inner in one.items() if key not in _LABELS]
        elif isinstance(one, list):
            waiting += one


def _check_config(said: Any, path: Path) -> None:
    for key, value in _mapping(said, path).items():
        if key not in CONFIG_KEYS and key not in _LABELS:
            raise _refused(f"config.json has a key that no model for text is known to need: {key[:100]!r}", path)
        if key in _LABELS or key in _FREE:
            continue
        if isinstance(value, dict) and key not in _TREES:
            raise _refused(f"config.json has a model inside the model: {key!r}", path)
        _check_plain(key, value, path)


def _check_plain(key: str, value: Any, path: Path) -> None:
    """Every text at every depth is a name, not a path or an address."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and not _PLAIN.fullmatch(one):
            raise _refused(f"{path.name} has a value of {key!r} that is no plain word: {one[:100]!r}", path)


def _check_tokenizer(said: Any, path: Path) -> None:
    for key, value in _mapping(said, path).items():
        is_token = key.endswith("_token") and isinstance(value, str | dict | None)
        if key not in TOKENIZER_KEYS and not is_token and value is not None:
            raise _refused(f"tokenizer_config.json has a key that no tokenizer is known to need: {key[:100]!r}", path)
    name = said.get("tokenizer_class")
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"\w{1,100}", name)):
        raise _refused("a tokenizer's class that is no name", path)


def _check_adapter(said: Any, path: Path) -> None:
    """Of peft: the base model lies beside it, and no module is imported by name."""
    base = _mapping(said, path).get("base_model_name_or_path")
    if base is not None and not (isinstance(base, str) and re.fullmatch(r"base|[0-9a-f]{64}", base)):
        raise _refused(f"an adapter whose base model lies elsewhere: {str(base)[:100]!r}", path)
    library = (said.get("auto_mapping") or {}).get("parent_library", "transformers.")
    if not str(library).startswith("transformers."):
        raise _refused(f"an adapter that has a module imported: {str(library)[:100]!r}", path)


def _check_modules(said: Any, path: Path) -> None:
    """Of sentence-transformers, which imports what this names."""
    for module in said if isinstance(said, list) else [None]:
        kind, place = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not re.fullmatch(r"sentence_transformers(\.\w+)+", kind):
            raise _refused(f"modules.json names a class of another library: {str(kind)[:100]!r}", path)
        if place:
            inside(path.parent, str(place))


def _mapping(value: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused("no object, where one is expected", path)
    return value


def _refused(problem: str, path: Path) -> Damaged:
    return Damaged(problem, value=str(path), next_step=_SAVED)
