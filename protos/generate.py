"""Generates the committed stubs in perilune/api from the protos beside this file.

`--check` generates into a temporary folder and fails if the committed stubs differ.
"""

import filecmp
import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
PACKAGE = Path("perilune/api")


# protoc looks for its plugins on the PATH; ours lie beside this Python.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def generate(out: Path) -> None:
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--{kind}={out}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    if protoc.main([*arguments, *sources]):
        raise SystemExit("protoc failed; its message is above")
    folders = {out / PACKAGE, *(path.parent for path in (out / PACKAGE).rglob("*.py"))}
    for folder in {
        parent for leaf in folders for parent in (leaf, *leaf.parents) if parent.is_relative_to(out / PACKAGE)
    }:
        (folder / "__init__.py").write_text("")


def files_below(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*.py*") if path.suffix in (".py", ".pyi")}


def main() -> None:
    repository = PROTOS.parent
    with tempfile.TemporaryDirectory() as temporary:
        fresh, committed = Path(temporary) / PACKAGE, repository / PACKAGE
        generate(Path(temporary))
        if sys.argv[1:] != ["--check"]:
            shutil.rmtree(committed, ignore_errors=True)
            shutil.copytree(fresh, committed)
            return
        names = files_below(fresh) | files_below(committed)
        _, changed, missing = filecmp.cmpfiles(fresh, committed, [str(name) for name in names], shallow=False)
        if changed or missing:
            raise SystemExit(f"perilune/api is not what protos/ say: {sorted(changed + missing)}; run `make protos`")


if __name__ == "__main__":
    main()
