"""Pictures that models look at: encoded bytes, checked and decoded alike wherever they are read. No torch here."""

from perilune.images.reading import (
    LIMITS,
    ImageLimits,
    InvalidImageError,
    convert_image,
    digest_of_image,
    encode_png,
    media_type_of,
    read_image,
)

__all__ = [
    "LIMITS", "ImageLimits", "InvalidImageError", "convert_image", "digest_of_image", "encode_png",
    "media_type_of", "read_image",
]  # fmt: skip
