"""Images in a prompt of an image-text model: from encoded bytes to the vectors that its language part reads.

`reader.py` is the model's own processor: ids with slots for each image, and its pixels. `embedding.py` runs the
encoder and puts what it makes of an image into the slots; the trainer's rows and the engine's passes both call it.
"""

from perilune.models.vision.reader import (
    PlacedImage,
    SeenImage,
    VisionReader,
    is_image_text,
    processor_files,
    read_processor,
)

__all__ = ["PlacedImage", "SeenImage", "VisionReader", "is_image_text", "processor_files", "read_processor"]
