"""Generates the committed stubs in perilune/api from the protos beside this file, and comments.json: what the protos
say about each name, for the HTTP face's documentation (generated code has no comments).

`--check` generates into a temporary folder and fails if the committed stubs differ.
"""

import filecmp
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).parent
PACKAGE = Path("perilune/api")


# protoc looks for its plugins on the PATH; ours lie beside this Python.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def generate(out: Path) -> None:
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--{kind}={out}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    described = out / "described.binpb"
    arguments += [f"--descriptor_set_out={described}", "--include_source_info"]
    if protoc.main([*arguments, *sources]):
        raise SystemExit("protoc failed; its message is above")
    folders = {out / PACKAGE, *(path.parent for path in (out / PACKAGE).rglob("*.py"))}
    for folder in {
        parent for leaf in folders for parent in (leaf, *leaf.parents) if parent.is_relative_to(out / PACKAGE)
    }:
        (folder / "__init__.py").write_text("")
    comments: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(described.read_bytes()).file:
        comments |= comments_of(file)
    (out / PACKAGE / "comments.json").write_text(json.dumps(comments, indent=1, sort_keys=True, ensure_ascii=False))


def comments_of(file: FileDescriptorProto) -> dict[str, str]:
    """The comment before each service, method, message, field, enum and enum value of a file, by its full name."""
    places = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    found = {}
    for path, name in _names(file):
        lines = [line.removeprefix(" ") for line in places.get(path, "").splitlines()]
        if any(lines):
            found[f"{file.package}.{name}"] = "\n".join(lines).strip()
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Paths by field numbers of descriptor.proto, as SourceCodeInfo has them, and names."""
    for i, service in enumerate(file.service):
        yield (6, i), service.name
        for j, method in enumerate(service.method):
            yield (6, i, 2, j), f"{service.name}.{method.name}"
    for i, message in enumerate(file.message_type):
        yield from _message_names((4, i), message, message.name)
    for i, enum in enumerate(file.enum_type):
        yield from _enum_names((5, i), enum, enum.name)


def _message_names(path: tuple[int, ...], message: DescriptorProto, name: str) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, 2, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _message_names((*path, 3, i), nested, f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        yield from _enum_names((*path, 4, i), enum, f"{name}.{enum.name}")


def _enum_names(path: tuple[int, ...], enum: EnumDescriptorProto, name: str) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), f"{name}.{value.name}"


def files_below(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*.*") if path.suffix in (".py", ".pyi", ".json")}


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
