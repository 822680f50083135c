"""Hugging Face datasets: a directory written by `save_to_disk`, or a name on the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.data.sources import Options, columns_in, row_of
from headrace.errors import BadInput, NotFound, Unavailable
from headrace.records import RawRow
from headrace.registry import resolve

_PREFIX = "hf://"
_MARKS = ("dataset_dict.json", "dataset_info.json")
_N_BATCH = 1000
_LOADERS = ("load_from_disk", "load_dataset")
_PURPOSE = "a Hugging Face dataset"


class HuggingFaceDataset:
    """All splits, one after another; `line` counts on. A class of a ClassLabel column is given by its name,
    also in lists."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return location.startswith(_PREFIX) or any((Path(location) / mark).is_file() for mark in _MARKS)

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        line = 0
        for part in _parts(location):
            columns = columns_in(part.column_names, options)
            names = _class_names(part.features.get(columns.label)) if columns.label else None
            wanted = columns.used()
            for batch in part.select_columns(wanted).iter(batch_size=_N_BATCH):
                for values in zip(*(batch[name] for name in wanted), strict=True):
                    line += 1
                    row = dict(zip(wanted, values, strict=True))
                    if names is not None and columns.label:
                        row[columns.label] = _class_name(row[columns.label], names)
                    yield row_of(line, row, columns)


def _parts(location: str) -> list[Any]:
    """The splits of what is at the location, in its own order."""
    load_from_disk, load_dataset = (resolve(f"datasets:{name}", purpose=_PURPOSE) for name in _LOADERS)
    errors = resolve("datasets:exceptions", purpose=_PURPOSE)
    path = Path(location)
    try:
        if path.is_dir():
            loaded = load_from_disk(location)
        elif path.exists():
            raise BadInput("a file, where a dataset's directory is expected", value=location, next_step="Drop --format")
        else:
            loaded = load_dataset(location.removeprefix(_PREFIX))
    except (FileNotFoundError, errors.DatasetNotFoundError) as error:
        raise NotFound(
            f"no such dataset ({error})", value=location, next_step="Give a directory of save_to_disk, or a hub name"
        ) from None
    except ConnectionError as error:
        raise Unavailable(f"the hub cannot be reached ({error})", value=location, next_step="Try again") from None
    except (OSError, ValueError, KeyError, TypeError, errors.DatasetsError) as error:  # whatever broken files lead to
        raise BadInput(f"the dataset cannot be read: {error}", value=location, next_step="Write it again") from None
    return list(loaded.values()) if isinstance(loaded, dict) else [loaded]


def _class_names(feature: Any) -> list[str] | None:
    """The names of a class column, or of one that holds lists of classes."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if names is not None else None


def _class_name(value: Any, names: list[str]) -> Any:
    """The hub's mark for "no label" is -1."""
    if isinstance(value, list):
        return [_class_name(one, names) for one in value]
    if value is None or value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value
