"""Names that stay inside their folder, and folders that hold nothing but plain files."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headrace.errors import Damaged

_MAX_FILES = 10_000
_MAX_CHARS = 1_000


def inside(folder: Path, name: str) -> Path:
    """Where a file of this name lies in `folder`.

    Raises:
        Damaged: the name leads out of it, is absolute, or is none.
    """
    parts = PurePosixPath(name).parts
    plain = parts and name == "/".join(parts) and ".." not in parts and not name.startswith("/")
    if not plain or len(name) > _MAX_CHARS or not name.isprintable() or "\\" in name or "%" in name:
        raise Damaged("a name leads out of its folder", value=name, next_step="Do not use this copy of the files")
    return folder.joinpath(*parts)


def plain_files(folder: Path, *, root: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Every file below a folder with its name there, in order.

    Args:
        root: where links may lead to, such as the blobs of a cache; None: there may be none.

    Raises:
        Damaged: a link that leads elsewhere, something that is no file, or too many files.
    """
    n_files = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in [*folders, *sorted(names)]:
            path = Path(place, name)
            found = path.lstat().st_mode
            if stat.S_ISLNK(found):
                _check_link(path, root)
                found = path.stat().st_mode
            if stat.S_ISDIR(found) and not path.is_symlink():
                continue
            if not stat.S_ISREG(found):
                raise _damaged("neither a file nor a folder", path)
            n_files += 1
            if n_files > _MAX_FILES:
                raise _damaged(f"more than {_MAX_FILES} files in a folder", folder)
            yield path.relative_to(folder).as_posix(), path


def _check_link(path: Path, root: Path | None) -> None:
    if root is None or not path.exists() or not path.resolve().is_relative_to(root.resolve()):
        raise _damaged("a link, where a file is expected", path)


def _damaged(problem: str, path: Path) -> Damaged:
    return Damaged(problem, value=str(path), next_step="Put the file itself there, or do not use this folder")
