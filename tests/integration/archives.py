"""Small image archives for tests: made by hand, with a shell and the libraries that it needs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    """An entry of a layer, as no honest tool might write it."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return info


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A layer's tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def text(name: str, content: str, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, mode=mode), content.encode()


def program(path: str, inside: str = "") -> list[tuple[tarfile.TarInfo, bytes]]:
    """An executable of this machine, with the libraries that it is linked to, where they lie."""
    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    return [
        (entry(name.lstrip("/"), mode=0o755), Path(real).read_bytes())
        for name, real in [(inside or path, path), *((library, library) for library in libraries)]
    ]


def docker_archive(path: Path, layers: Sequence[bytes], environment: Sequence[str] = (), **changes: object) -> Path:
    """As older versions of `docker save` write it; `changes` are of the configuration."""
    config = _config(layers, environment, changes)
    names = [f"{hashlib.sha256(data).hexdigest()}/layer.tar" for data in layers]
    files = dict(zip(names, layers, strict=True))
    files[f"{hashlib.sha256(config).hexdigest()}.json"] = config
    manifest = [{"Config": f"{hashlib.sha256(config).hexdigest()}.json", "RepoTags": ["test:1"], "Layers": names}]
    files["manifest.json"] = json.dumps(manifest).encode()
    return _write(path, files)


def oci_archive(path: Path, layers: Sequence[bytes], environment: Sequence[str] = ()) -> Path:
    """An OCI layout with gzip layers and an index of two machines."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    config = blob(_config(layers, environment, {}))
    manifest = {"schemaVersion": 2, "config": config, "layers": [blob(gzip.compress(data)) for data in layers]}
    ours = blob(json.dumps(manifest).encode(), platform={"os": "linux", "architecture": ARCHITECTURE})
    other = {"digest": f"sha256:{'0' * 64}", "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [other, ours]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return _write(path, blobs)


def _config(layers: Sequence[bytes], environment: Sequence[str], changes: Mapping[str, object]) -> bytes:
    config: dict[str, object] = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]},
    }
    return json.dumps(config | dict(changes)).encode()


def _write(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(layer(*((entry(name), content) for name, content in files.items())))
    return path
