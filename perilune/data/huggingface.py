"""Datasets in Hugging Face's format: by their name on the hub, or a folder on disk."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError, MissingDependencyError

MAX_FILES = 100_000  # of a folder, looked at before it is read


def load_split(dataset: str, config: str | None, split: str, use: str, hint: str = "") -> Any:
    """One split: of a folder that `save_to_disk` wrote, or of whatever `load_dataset` understands. Images are encoded.

    Args:
        dataset: a name on the hub, or a folder.
        config: a configuration of it, if it has several.
        split: the split's name.
        use: what it is for, in words of errors.
        hint: what to do if a saved dataset has no such split.

    Raises:
        MissingDependencyError: `datasets` is not installed.
        InvalidInputError: there is no such dataset or split, or it cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{use} needs `pip install datasets`") from error
    # What the library raises for names, folders, files, splits and configurations that are not there or not right.
    library_errors = (OSError, ValueError, KeyError, ImportError, datasets.exceptions.DatasetsError)
    try:
        saved = Path(dataset)
        _check_files(saved)
        if not (saved / "dataset_dict.json").exists() and not (saved / "state.json").exists():
            return _encoded_images(datasets.load_dataset(dataset, config, split=split))
        return _encoded_images(_split_of(datasets.load_from_disk(dataset), dataset, split, hint))
    except library_errors as error:
        raise InvalidInputError(f"cannot load {dataset!r}, split {split!r}: {error}") from error


def _split_of(found: Any, dataset: str, split: str, hint: str) -> Any:
    import datasets

    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InvalidInputError(f"{dataset} has no split {split!r}; it has {', '.join(map(repr, found))}")
        return found[split]
    if split != str(found.split or "train"):
        holds = f"holds the split {str(found.split)!r} alone" if found.split else "is one dataset without splits"
        raise InvalidInputError(f"{dataset} {holds}, and {split!r} is asked for{hint}")
    return found


def _encoded_images(rows: Any) -> Any:
    """Rows whose images are bytes or paths as they were given, and are not decoded: an image is known by its bytes."""
    import datasets

    for key, kind in rows.features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(key, datasets.Image(decode=False))
        elif isinstance(getattr(kind, "feature", None), datasets.Image):  # a list of them
            rows = rows.cast_column(key, type(kind)(datasets.Image(decode=False)))
    return rows


def _check_files(folder: Path) -> None:
    """InvalidInputError for a pipe or a device, which the library would read for ever."""
    paths = itertools.islice(folder.rglob("*"), MAX_FILES) if folder.is_dir() else [folder]
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InvalidInputError(f"{path} is no regular file")
