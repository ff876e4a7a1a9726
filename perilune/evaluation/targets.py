"""The model that is evaluated: a folder or a package, a run's version, or whatever an endpoint serves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.api.master.v1.master_pb2 import Version
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.completions import ModelTable
from perilune.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotFoundError,
    UnavailableError,
    WeightStreamError,
)
from perilune.models.packages import PACKAGE_PREFIX

VersionsOf = Callable[[str], Sequence[Version]]
"""From a run's id to its versions. NotFoundError."""

_RUN = re.compile(r"([a-z0-9][a-z0-9_-]*)(?:@v?(\d+))?")


@dataclass(frozen=True)
class Target:
    """A model, how it is reached, and what it is known by."""

    model: ModelTable
    shown: str
    identity: str  # of the weights, for digests: where they change, it does
    run_id: str = ""
    policy: PolicyVersion = field(default_factory=PolicyVersion)


@dataclass(frozen=True)
class Places:
    """Says where runs are: the home of their weights, and who knows their versions."""

    home: Path
    versions_of: VersionsOf


def find_target(source: str, name: str, table: ModelTable, places: Places, api_key: str = "") -> Target:
    """The model that a command names.

    Args:
        source: an endpoint's URL, a folder, `package:NAME`, a Hugging Face id, RUN or RUN@VERSION.
        name: of the model at an endpoint that serves several.
        table: how it is reached; the rest is filled in.
        places: of runs.
        api_key: of an endpoint.

    Raises:
        NotFoundError: no such folder, package, run or version.
        InvalidInputError: the endpoint serves no such model, or the version is not kept.
        UnavailableError: the endpoint does not answer.
    """
    if source.startswith(("http://", "https://")):
        return _endpoint(source, name, table, api_key)
    if Path(source).is_dir():
        return _local(str(Path(source).resolve()), name or Path(source).resolve().name, table)
    if source.startswith(PACKAGE_PREFIX):
        return _package(source, table)
    if found := _RUN.fullmatch(source):
        return _run(found[1], int(found[2]) if found[2] else None, table, places)
    if source.count("/") == 1 and not source.startswith((".", "/")):
        return Target(table.model_copy(update={"path": source}), source, source)
    raise NotFoundError(f"{source} is no folder with a model, no package:NAME, no run and no URL")


def _local(path: str, name: str, table: ModelTable) -> Target:
    model = table.model_copy(update={"path": path, "model": name})
    return Target(model, path, model.identity())


def _package(source: str, table: ModelTable) -> Target:
    package = source.removeprefix(PACKAGE_PREFIX)
    owners = metadata.packages_distributions().get(package, [])
    version = metadata.version(owners[0]) if owners else ""
    model = table.model_copy(update={"path": source, "model": package})
    return Target(model, source, f"{source} {version}")


def _run(run_id: str, number: int | None, table: ModelTable, places: Places) -> Target:
    try:
        versions = {version.policy.number: version.policy for version in places.versions_of(run_id)}
    except NotFoundError as error:
        raise NotFoundError(f"{run_id} is neither a folder with a model nor a run: {error}") from error
    if not versions:
        raise InvalidInputError(f"the run {run_id} has no version yet")
    wanted = max(versions) if number is None else number
    if wanted not in versions:
        raise NotFoundError(f"the run {run_id} has versions {min(versions)} to {max(versions)}, and no {wanted}")
    return of_version(run_id, versions[wanted], table, places.home)


def of_version(run_id: str, policy: PolicyVersion, table: ModelTable, home: Path) -> Target:
    """A run's version, out of its checkpoint or of the versions that are kept as they were sent.

    InvalidInputError if it is kept in neither way on this machine.
    """
    folder = home / run_id / "checkpoints" / f"v{policy.number:06d}"
    if not (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        folder = _exported(run_id, policy, home)
    return _version_in(folder, run_id, policy, table)


def copied_version(run_id: str, policy: PolicyVersion, table: ModelTable, home: Path) -> Target:
    """A run's version in a copy of its own, which stays while the trainer writes newer ones. InvalidInputError if it
    is not kept (any more); OSError if there is no room."""
    copy = home / "evaluations" / "versions" / f"{run_id}-v{policy.number:06d}"
    checkpoint = home / run_id / "checkpoints" / f"v{policy.number:06d}"
    if (checkpoint / "config.json").is_file() and not (checkpoint / "adapter_config.json").is_file():
        shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("*.pt"), dirs_exist_ok=True)
    else:
        copy = _exported(run_id, policy, home)
    return _version_in(copy, run_id, policy, table)


def _version_in(folder: Path, run_id: str, policy: PolicyVersion, table: ModelTable) -> Target:
    model = table.model_copy(update={"path": str(folder.resolve()), "model": run_id})
    return Target(model, run_id, f"{run_id} v{policy.number} {policy.digest}", run_id, policy)


def _exported(run_id: str, policy: PolicyVersion, home: Path) -> Path:
    from perilune.weights.store import VersionStore

    folder = home / "evaluations" / "versions" / f"{run_id}-v{policy.number:06d}-{policy.digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    writing = folder.with_name(f"{folder.name}.writing")
    try:
        VersionStore(home / run_id / "versions").export(policy.number, writing)
    except (NotFoundError, WeightStreamError) as error:
        shutil.rmtree(writing, ignore_errors=True)
        raise InvalidInputError(
            f"the weights of {run_id}@{policy.number} are not on this machine: {error}; evaluate where the trainer's "
            "home is, or name the URL of an endpoint that serves them"
        ) from error
    if not (writing / "config.json").is_file() or (writing / "adapter_config.json").is_file():
        shutil.rmtree(writing, ignore_errors=True)
        raise InvalidInputError(
            f"{run_id}@{policy.number} is an adapter, which no engine serves alone: merge it with `perilune merge`"
        )
    writing.rename(folder)
    return folder


def _endpoint(url: str, name: str, table: ModelTable, api_key: str) -> Target:
    served = _models_at(url, api_key)
    if not name and len(served) != 1:
        raise InvalidInputError(f"{url} serves {', '.join(served) or 'no model'}: name one with --model")
    name = name or next(iter(served))
    if name not in served:
        raise InvalidInputError(f"{url} serves no {name!r}, but {', '.join(served) or 'nothing'}")
    version = served[name].get("perilune") or {}
    digest, number = str(version.get("digest", "")), int(version.get("version") or 0)
    model = table.model_copy(update={"url": url, "model": name})
    policy = PolicyVersion(number=number, digest=digest, name=str(version.get("policy", "")))
    return Target(model, name, f"{name} {digest}" if digest else f"{url} {name}", policy=policy)


def tokenizer_at(url: str, name: str, api_key: str) -> dict[str, Any] | None:
    """Returns what an endpoint shows of a model's tokenizer, as Perilune's and vLLM's do; None where it does not."""
    import httpx2

    headers, place = _headers(api_key), url.rstrip("/").removesuffix("/v1")
    try:
        answer = httpx2.get(f"{place}/tokenizer_info", params={"model": name}, headers=headers, timeout=30.0)
        shown = json.loads(answer.content) if answer.is_success else None
    except (httpx2.HTTPError, ValueError):
        return None
    return shown if isinstance(shown, dict) and "tokenizer_class" in shown else None


def write_tokenizer(url: str, name: str, api_key: str, info: dict[str, Any], folder: Path) -> bool:
    """Writes the tokenizer that an endpoint shows as a folder that transformers reads; False where it does not."""
    import httpx2

    place = url.rstrip("/").removesuffix("/v1")
    try:
        answer = httpx2.get(f"{place}/tokenizer.json", params={"model": name}, headers=_headers(api_key), timeout=60.0)
    except httpx2.HTTPError:
        return False
    if not answer.is_success:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(answer.content)
    config = {key: value for key, value in info.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return True


def _headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _models_at(url: str, api_key: str) -> dict[str, dict[str, Any]]:
    try:
        import httpx2
    except ImportError as error:
        raise MissingDependencyError(f"asking an endpoint needs `pip install httpx2`: {error}") from error
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/models", headers=_headers(api_key), timeout=30.0)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UnavailableError(f"{url} does not answer: {error}") from error
    if answer.is_error:
        raise InvalidInputError(f"{url}/models answers {answer.status_code}: {answer.text[:300]}; a URL ends in /v1")
    try:
        return {str(each["id"]): each for each in json.loads(answer.content)["data"]}
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidInputError(f"{url}/models answers with no list of models: {answer.text[:200]!r}") from error
