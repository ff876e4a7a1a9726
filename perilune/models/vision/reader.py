"""A model's own image processor: the ids with which a prompt shows an image, and the pixels that its encoder takes.

Each image is processed by itself, so that what is made of it depends on its bytes and the processor's settings alone:
the rollout worker and the trainer make the same pixels, to the bit, and pixels never travel. A prompt's ids are those
of its text, with each placeholder replaced by the ids that the processor writes for that image.

Always by Pillow: the processors that torchvision has resize otherwise.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perilune.errors import InvalidInputError
from perilune.images import read_image
from perilune.models.chat import Message, prompt_text

if TYPE_CHECKING:  # what only counts and places slots needs neither
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
TEXT_FIELDS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
CACHE_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image as the processor reads it."""

    digest: str  # SHA-256 of its bytes, in hex
    data: bytes  # encoded
    pixels: Mapping[str, Tensor]  # arguments of the model's `get_image_features`
    ids: tuple[int, ...]  # that stand for it in a prompt
    slots: tuple[int, ...]  # which of them the encoder's vectors take the place of

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return len(self.data) + sum(tensor.nbytes for tensor in self.pixels.values())


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image in a prompt."""

    image: SeenImage
    start: int  # of its ids in the prompt

    @property
    def digest(self) -> str:
        """Returns the image's SHA-256 in hex."""
        return self.image.digest

    @property
    def end(self) -> int:
        """Returns where its ids end in the prompt."""
        return self.start + len(self.image.ids)

    @property
    def slots(self) -> NDArray[np.int64]:
        """The positions that the encoder's vectors take the place of."""
        import numpy as np

        return np.array(self.image.slots, np.int64) + self.start


class VisionReader:
    """Reads images by the processor of one model. What it made of an image is kept as long as there is room."""

    def __init__(self, processor: Any, tokenizer: Any, settings: Mapping[str, bytes], cache_bytes: int = CACHE_BYTES):
        self._processor, self._tokenizer = processor, tokenizer
        self.placeholder: str = processor.image_token
        self.slot_id = int(tokenizer.convert_tokens_to_ids(self.placeholder))
        self.version = _version(settings)
        self._kept: OrderedDict[str, SeenImage] = OrderedDict()
        self._kept_bytes, self._cache_bytes = 0, cache_bytes
        self._lock = threading.Lock()

    def see(self, data: bytes, digest: str | None = None) -> SeenImage:
        """An image, from its encoded bytes; from any thread. InvalidInputError if it cannot be read."""
        digest = digest or hashlib.sha256(data).hexdigest()
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = self._made(data, digest)
                self._kept_bytes += self._kept[digest].num_bytes
                while len(self._kept) > 1 and self._kept_bytes > self._cache_bytes:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].num_bytes
            self._kept.move_to_end(digest)
            return self._kept[digest]

    def _made(self, data: bytes, digest: str) -> SeenImage:
        image = read_image(data, f"the image {digest[:16]}")
        try:
            made = self._processor(
                images=[image], text=[self.placeholder], return_tensors="pt", add_special_tokens=False
            )
        except Exception as error:  # a processor is another project's program, and decides itself what it raises
            raise InvalidInputError(
                f"the model's image processor refuses the image {digest[:16]} ({image.width} x {image.height} pixels): "
                f"{type(error).__name__}: {error}"
            ) from error
        ids = tuple(made["input_ids"][0].tolist())
        slots = tuple(place for place, token in enumerate(ids) if token == self.slot_id)
        pixels = {name: value for name, value in made.items() if name not in TEXT_FIELDS}
        return SeenImage(digest, data, pixels, ids, slots)

    def prompt(self, messages: Sequence[Message], images: Sequence[SeenImage], **arguments: Any) -> list[int]:
        """Token ids of messages whose contents may be parts, up to where the response begins.

        Args:
            messages: see `perilune.models.chat.prompt_ids`; a content may be a list of parts, text and images.
            images: those of all messages, in order.
            arguments: the template's own.

        Raises:
            InvalidInputError: the template or the tokenizer refuses the messages, or does not write one placeholder for
                each image.
        """
        text = prompt_text(self._tokenizer, messages, self.placeholder, **arguments)
        plain: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if (count := plain.count(self.slot_id)) != len(images):
            raise InvalidInputError(
                f"the messages have {len(images)} images, and as text {count} placeholders {self.placeholder}: leave "
                "that word out of texts, and use a chat template that writes it once for each image"
            )
        return list(_expanded(plain, self.slot_id, images))

    def place(
        self, ids: Sequence[int] | NDArray[np.int32] | NDArray[np.int64], images: Sequence[SeenImage]
    ) -> tuple[PlacedImage, ...]:
        """Finds the images of a prompt in its ids. InvalidInputError if they are not those that it was made with."""
        wanted = list(ids)
        placed, begin = list[PlacedImage](), 0
        for image in images:
            if not image.slots:
                raise InvalidInputError(f"the model's image processor makes no slot of the image {image.digest[:16]}")
            try:
                start = wanted.index(self.slot_id, begin) - image.slots[0]
            except ValueError:
                start = -1
            if start < begin or tuple(wanted[start : start + len(image.ids)]) != image.ids:
                raise InvalidInputError(
                    f"the prompt's ids have no place for the image {image.digest[:16]}, for which {self.version} "
                    f"writes {len(image.ids)} ids: another processor made them"
                )
            placed.append(PlacedImage(image, start))
            begin = placed[-1].end
        if self.slot_id in wanted[begin:]:
            raise InvalidInputError(f"the prompt has a slot of an image ({self.placeholder}) behind its last image")
        return tuple(placed)


def _expanded(plain: Sequence[int], slot_id: int, images: Sequence[SeenImage]) -> Iterator[int]:
    """The ids of a text, with those of an image for each placeholder."""
    shown = iter(images)
    for token in plain:
        if token == slot_id:
            yield from next(shown).ids
        else:
            yield token


def _version(settings: Mapping[str, bytes]) -> str:
    """A processor's version: its settings, and the libraries that compute with them."""
    import PIL
    import transformers

    digest = hashlib.sha256()
    for name in sorted(settings):
        digest.update(name.encode() + b"\0" + settings[name] + b"\0")
    return f"processor {digest.hexdigest()[:16]} (transformers {transformers.__version__}, Pillow {PIL.__version__})"


# --- From a model's files -----------------------------------------------------------------------------------------


def is_image_text(config: Any) -> bool:
    """Tests whether a configuration of transformers is that of a model that reads images and text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return getattr(config, "vision_config", None) is not None and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def processor_files(path: str) -> dict[str, bytes]:
    """The settings of a model's image processor, as they lie in its folder or on the hub; none of a text model."""
    from transformers.utils.hub import cached_file

    found = {name: cached_file(path, name, _raise_exceptions_for_missing_entries=False) for name in PROCESSOR_FILES}
    return {name: Path(file).read_bytes() for name, file in found.items() if file is not None}


def processor_template(path: str) -> str | None:
    """The chat template that lies beside a processor, where its tokenizer has none; None if there is none either."""
    from transformers.utils.hub import cached_file

    file = cached_file(path, "chat_template.json", _raise_exceptions_for_missing_entries=False)
    return None if file is None else str(json.loads(Path(file).read_bytes())["chat_template"])


def settings_of(model_files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A version's small files that are the image processor's settings."""
    return {name: model_files[name] for name in PROCESSOR_FILES if name in model_files}


def read_processor(model_files: Mapping[str, bytes], config: Any, tokenizer: Any) -> VisionReader | None:
    """The reader of a model's images; None if it is a text model, or one that comes without a processor.

    InvalidInputError if the files make no processor.
    """
    from perilune.models.files import model_folder

    settings = settings_of(model_files)
    if not settings or not is_image_text(config):
        return None
    with model_folder(model_files) as folder:
        try:
            make: Any = _images_only(type(config)).from_pretrained
            processor = make(folder)
        except Exception as error:  # the files may hold anything, and the library raises what it stumbles over
            raise InvalidInputError(
                f"the image processor of {config.model_type} cannot be made of {', '.join(settings)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    return VisionReader(processor, tokenizer, settings)


def _images_only(config_class: type) -> Any:
    """The processor class of a model, without the part for videos, which needs torchvision."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    whole: Any = PROCESSOR_MAPPING[config_class]

    class ImagesOnly(whole):  # type: ignore[misc]
        """Makes its image processor with Pillow, and no other part but the tokenizer."""

        @classmethod
        def _get_arguments_from_pretrained(cls, path: Any, processor_dict: Any = None, **_: Any) -> list[Any]:
            makers: dict[str, Callable[[], Any]] = {
                "image_processor": lambda: AutoImageProcessor.from_pretrained(path, backend="pil"),
                "tokenizer": lambda: AutoTokenizer.from_pretrained(path),
            }
            return [makers[name]() if name in makers else None for name in cls.get_attributes()]

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            check: Any = super().check_argument_for_proper_class
            return None if argument is None else check(argument_name, argument)

    ImagesOnly.__name__ = whole.__name__
    return ImagesOnly
