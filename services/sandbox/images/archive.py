"""Reads an image's archive: an OCI layout (a folder, or a tar of one) or what `docker save` writes.

Nothing in it is believed: every blob is checked against the digest by which it was asked for, and every layer against
the digest that the image's configuration has of it. (OCI image specification 1.1; Docker image specification 1.2.)
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import platform
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import zstandard

from perilune.errors import InvalidInputError

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAX_DOCUMENT_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


class DamagedImageError(InvalidInputError):
    """An archive that is no image, or not a whole one; the message says what is wrong with it."""


@dataclass(frozen=True)
class Layer:
    """One layer: its path, and its digests as packed (where the archive states it) and unpacked."""

    path: str
    digest: str
    diff_id: str


@dataclass(frozen=True)
class Manifest:
    """The layers of an image, the lowest first."""

    digest: str  # of the configuration: what Docker calls the image's id
    environment: Mapping[str, str]
    layers: tuple[Layer, ...]


class Archive(Protocol):
    """The source of an image's files."""

    def open(self, path: str) -> IO[bytes]:
        """A file by its path in the archive. DamagedImageError: there is none."""


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """An archive, or the folder of one. InvalidInputError: there is none, or it is neither."""
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        with _open_tar(path) as tar:
            yield _Tar(tar)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedImageError(
            f"{path} is no archive, or a damaged one; make one with `docker save -o FILE IMAGE`"
        ) from error


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, path: str) -> IO[bytes]:
        try:
            return (self._folder / path).open("rb")
        except OSError as error:
            raise DamagedImageError(f"it has no {path}") from error


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def open(self, path: str) -> IO[bytes]:
        for name in (path, f"./{path}"):
            with contextlib.suppress(KeyError):  # of a link whose target is missing, too
                file = self._tar.extractfile(name)
                if file:
                    return file
        raise DamagedImageError(f"it has no {path}")


def read_manifest(archive: Archive) -> Manifest:
    """The image for this kind of machine. DamagedImageError; InvalidInputError: it is for another kind, or of many."""
    try:
        try:
            index = _document(archive, "index.json")
        except DamagedImageError:
            return _docker_manifest(archive)
        return _oci_manifest(archive, index)
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedImageError(f"its description makes no sense ({type(error).__name__}: {error})") from error


@contextlib.contextmanager
def open_layer(archive: Archive, layer: Layer) -> Iterator[tarfile.TarFile]:
    """A layer's entries, one after the other. DamagedImageError, if not before, then at the end: it is another."""
    packed = _Hashed(archive.open(layer.path))
    unpacked = _Hashed(_unpack(packed))
    try:
        with tarfile.open(fileobj=unpacked, mode="r|", bufsize=_CHUNK_BYTES) as tar:
            yield tar
        unpacked.check(layer.diff_id)
        if layer.digest:
            packed.check(layer.digest)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DamagedImageError(f"layer {layer.diff_id} cannot be unpacked: {error}") from error


def _oci_manifest(archive: Archive, index: Any) -> Manifest:
    manifest = _choose(archive, index["manifests"])
    descriptor = manifest["config"]
    layers = [(f"blobs/sha256/{_hex(layer['digest'])}", layer["digest"]) for layer in manifest["layers"]]
    return _manifest(descriptor["digest"], _blob(archive, descriptor), layers)


def _choose(archive: Archive, descriptors: list[Any]) -> Any:
    """The one manifest that is for this machine, through lists of them."""
    fitting = [one for one in descriptors if one.get("platform", {}).get("architecture", "") in ("", _ARCHITECTURE)]
    if not fitting:
        kinds = ", ".join(sorted({one["platform"]["architecture"] for one in descriptors})) or "no machine"
        raise InvalidInputError(f"the image is for {kinds}, and this machine is {_ARCHITECTURE}")
    documents = {one["digest"]: json.loads(_blob(archive, one)) for one in fitting}
    if len(documents) > 1:
        raise InvalidInputError(f"the archive holds {len(documents)} images; save one alone")
    (document,) = documents.values()
    return _choose(archive, document["manifests"]) if "manifests" in document else document


def _docker_manifest(archive: Archive) -> Manifest:
    try:
        images = _document(archive, "manifest.json")
    except DamagedImageError as error:
        raise DamagedImageError(
            "it is no image archive: it has neither index.json nor manifest.json. Make one with "
            "`docker save -o FILE IMAGE`, and not with `docker export`"
        ) from error
    if len(images) != 1:
        raise InvalidInputError(f"the archive holds {len(images)} images; save one alone")
    (image,) = images
    path = image["Config"]  # its name is its digest: HEX.json, or blobs/sha256/HEX
    digest = f"sha256:{path.rpartition('/')[2].removesuffix('.json')}"
    return _manifest(digest, _checked(archive, path, digest), [(layer, "") for layer in image["Layers"]])


def _manifest(digest: str, configuration: bytes, layers: list[tuple[str, str]]) -> Manifest:
    config = json.loads(configuration)
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(layers):
        raise DamagedImageError(f"it has {len(layers)} layers, and its configuration tells of {len(diff_ids)}")
    architecture = config.get("architecture", _ARCHITECTURE)
    if architecture != _ARCHITECTURE or config.get("os", "linux") != "linux":
        raise InvalidInputError(
            f"the image is for {config.get('os', 'linux')} on {architecture}; this machine is linux on {_ARCHITECTURE}"
        )
    variables = (config.get("config") or {}).get("Env") or []
    environment = {name: value for name, _, value in (variable.partition("=") for variable in variables)}
    together = zip(layers, diff_ids, strict=True)
    return Manifest(digest, environment, tuple(Layer(*layer, diff_id) for layer, diff_id in together))


def _document(archive: Archive, path: str) -> Any:
    with archive.open(path) as file:
        return _parse(path, file.read(_MAX_DOCUMENT_BYTES))


def _parse(path: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise DamagedImageError(f"its {path} is no JSON") from error


def _blob(archive: Archive, descriptor: Any) -> bytes:
    return _checked(archive, f"blobs/sha256/{_hex(descriptor['digest'])}", descriptor["digest"])


def _checked(archive: Archive, path: str, digest: str) -> bytes:
    with archive.open(path) as file:
        data = file.read(_MAX_DOCUMENT_BYTES)
    if hashlib.sha256(data).hexdigest() != _hex(digest):
        raise DamagedImageError(f"{path} is damaged: its digest is another than its name says")
    _parse(path, data)
    return data


def _hex(digest: str) -> str:
    found = _DIGEST.fullmatch(digest)
    if not found:
        raise DamagedImageError(f"{digest[:100]!r} is no SHA-256 digest")
    return found[1]


def _unpack(file: _Hashed) -> IO[bytes]:
    """The layer's tar, by how it begins: gzip, zstandard, or nothing at all."""
    buffered = io.BufferedReader(file, _CHUNK_BYTES)
    start = buffered.peek(4)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]
    if start.startswith(_ZSTANDARD):
        return zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
    return buffered


class _Hashed(io.RawIOBase):
    """A stream that knows the digest of all that was read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def check(self, digest: str) -> None:
        """Reads the rest. DamagedImageError: it is not what the digest says."""
        while self.read(_CHUNK_BYTES):
            continue
        if self._hash.hexdigest() != _hex(digest):
            raise DamagedImageError(f"a layer is damaged: its digest is sha256:{self._hash.hexdigest()}, not {digest}")
