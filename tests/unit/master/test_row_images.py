"""Images of rows: from columns and parts to the prompt and the store; each bad one is its own prompt's error."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from perilune.errors import InvalidInputError
from perilune.images import convert_image, digest_of_image, encode_png
from perilune.recipe import FilePrompts, FolderPrompts, HuggingFacePrompts
from perilune.runtime.blobs import Blobs
from services.master.prompts import PromptSet, open_prompts
from services.master.prompts.images import ImageAccess

COLOURS = ("red", "blue", "green")
RED, BLUE, GREEN = (encode_png(Image.new("RGB", (4, 4), colour)) for colour in COLOURS)
TRANSPARENT = encode_png(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
DATA_URL = f"data:image/png;base64,{b64encode(BLUE).decode()}"
TEXT = {"type": "text", "text": "How many?"}


def row(question: Any = "How many?", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": "3", **more}


def asked(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def opened(tmp_path: Path, rows: list[dict[str, Any]], **keys: Any) -> PromptSet:
    """A set of rows, behind one that is held out; its images go into the store beside it."""
    (tmp_path / "red.png").write_bytes(RED)
    path = tmp_path / "rows.jsonl"
    last = dict.fromkeys(rows[0]) | row("held out")
    path.write_text("".join(json.dumps(each) + "\n" for each in [*rows, last]))
    table = FilePrompts(source="file", path=[str(path)], num_heldout=1, **keys)
    return open_prompts(table, 0, ImageAccess(Blobs(str(tmp_path / "blobs"))))


def shown(prompts: PromptSet, index: int = 0) -> list[str]:
    """A prompt's parts: texts as they are, images by their colours."""
    names = {digest_of_image(data): name for data, name in zip((RED, BLUE, GREEN), COLOURS, strict=True)}
    (message,) = prompts.train(index).messages
    return [part.text or f"<{names.get(part.image.digest, 'other')}>" for part in message.parts] or [message.content]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (row(image="red.png"), ["<red>", "How many?"]),
        (row(images=["red.png", DATA_URL]), ["<red>", "<blue>", "How many?"]),
        (row("<image> or <image>?", images=["red.png", DATA_URL]), ["<red>", " or ", "<blue>", "?"]),
        (row(asked(TEXT, {"type": "image"}), image="red.png"), ["How many?", "<red>"]),
        (row([{"role": "user", "content": "Here <image>"}], image="red.png"), ["Here ", "<red>"]),
        (row([{"role": "user", "content": "Here"}], image="red.png"), ["<red>", "Here"]),
        (row(asked({"type": "image", "path": "red.png"}, TEXT)), ["<red>", "How many?"]),
        (row(asked({"type": "image", "base64": b64encode(RED).decode()}, TEXT)), ["<red>", "How many?"]),
        (row(asked({"type": "image_url", "image_url": {"url": DATA_URL}}, TEXT)), ["<blue>", "How many?"]),
        (row(asked({"type": "input_image", "image_url": DATA_URL}, TEXT)), ["<blue>", "How many?"]),
        (row("What does <image> do in HTML?"), ["What does <image> do in HTML?"]),
        (row(image=None, images=[]), ["How many?"]),
    ],
)
def test_an_image_goes_where_the_row_says(tmp_path: Path, given: dict[str, Any], parts: list[str]) -> None:
    prompts = opened(tmp_path, [given])
    assert shown(prompts) == parts
    stored = {file.name: file.read_bytes() for file in tmp_path.glob("blobs/content/*")}
    assert set(stored) == {image.digest for image in prompts.train(0).images}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in stored.items())
    assert not prompts.notes


def test_the_template_is_around_text_and_images_named_by_the_recipe(tmp_path: Path) -> None:
    given = row(picture="red.png", image="absent.png")
    prompts = opened(tmp_path, [given], images=["picture"], template="Look: {question}")
    assert shown(prompts) == ["<red>", "Look: How many?"]
    assert shown(opened(tmp_path, [given], images=[])) == ["How many?"]
    with pytest.raises(InvalidInputError, match="has no key 'pictures'; it has 'picture'"):
        opened(tmp_path, [given], images=["pictures"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row(image="absent.png"), r"line 2: 'image': cannot read .*absent.png"),
        (row(image="https://example.org/a.png"), "URLs are not fetched: .*PERILUNE_IMAGE_HOSTS"),
        (row(image="data:image/png;base64,AA!A"), "is no base64"),
        (row(image="data:image/png,AAAA"), "a data URL must be"),
        (row(image=f"data:image/png;base64,{b64encode(TRANSPARENT).decode()}"), "is transparent in places"),
        (row(image=f"data:image/png;base64,{b64encode(RED[:50]).decode()}"), "broken or cut short"),
        (row(image="rows.jsonl"), "is no image"),
        (row(image=7), "must be a path, bytes or a data URL, and is the number 7"),
        (row(asked({"type": "image", "digest": "0a" * 32, "media_type": "image/png"}, TEXT)), "not in the blob store"),
        (row(images=["red.png"] * 17), "more images than prompts.max_images = 16"),
    ],
)
def test_a_bad_image_leaves_its_prompt_out_and_the_others_stay(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    prompts = opened(tmp_path, [row(image="red.png"), given, row("Another?")])
    assert [shown(prompts, index) for index in range(prompts.num_train)] == [["<red>", "How many?"], ["Another?"]]
    first, reason = prompts.notes
    assert "1 of 4 rows left out for their images (prompts.convert_images" in first
    assert "left out" in reason
    assert re.search(message, reason)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row("<image> <image>", image="red.png"), "more places for images than images: 1 in the columns"),
        (row("one <image>", images=["red.png", "red.png"]), "has 2 images, and places for 1"),
        (row(asked({"type": "image"}, TEXT)), "more places for images than images: 0"),
        (row(asked({"type": "image", "path": "a", "base64": "b"})), "has both 'path' and 'base64'"),
    ],
)
def test_a_row_whose_places_and_images_differ_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        opened(tmp_path, [given])
    assert opened(tmp_path, [row(), given], skip_invalid=True).num_train == 1


def test_an_image_that_lies_in_the_store_is_named_by_its_digest(tmp_path: Path) -> None:
    digest = Blobs(str(tmp_path / "blobs")).put_content(RED)
    part = {"type": "image", "digest": digest, "media_type": "image/png"}
    assert shown(opened(tmp_path, [row(asked(part, TEXT))])) == ["<red>", "How many?"]


def test_conversion_takes_what_needs_a_choice(tmp_path: Path) -> None:
    given = row(image=f"data:image/png;base64,{b64encode(TRANSPARENT).decode()}")
    prompts = opened(tmp_path, [given], convert_images=True)
    assert [image.digest for image in prompts.train(0).images] == [digest_of_image(convert_image(TRANSPARENT))]


def test_the_digest_of_a_set_covers_the_bytes_of_its_images(tmp_path: Path) -> None:
    before = opened(tmp_path, [row(image="blue.png"), row()], skip_invalid=True).digest
    (tmp_path / "blue.png").write_bytes(BLUE)
    first = opened(tmp_path, [row(image="blue.png"), row()]).digest
    (tmp_path / "blue.png").write_bytes(GREEN)
    second = opened(tmp_path, [row(image="blue.png"), row()]).digest
    assert len({before, first, second}) == 3


def test_only_bad_images_are_an_error_that_says_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(image="absent.png")))
    with pytest.raises(InvalidInputError, match=r"there are no prompts; .*left out.*absent.png"):
        open_prompts(FilePrompts(source="file", path=[str(tmp_path / "rows.jsonl")]), 0)


def test_parquet_and_datasets_have_images_as_bytes_or_paths(tmp_path: Path) -> None:
    rows = [row(image={"bytes": RED, "path": None}), row(image={"bytes": None, "path": "red.png"}), row("held out")]
    (tmp_path / "red.png").write_bytes(RED)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    prompts = open_prompts(FilePrompts(source="file", path=[str(tmp_path / "rows.parquet")], num_heldout=1), 0)
    assert [shown(prompts, index)[0] for index in range(2)] == ["<red>", "<red>"]

    table = {"question": ["a", "b", "c"], "answer": ["1", "2", "3"], "image": [{"bytes": d} for d in (RED, BLUE, RED)]}
    found = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    found.save_to_disk(str(tmp_path / "saved"))
    keys = {"source": "huggingface", "dataset": str(tmp_path / "saved"), "num_heldout": 1}
    prompts = open_prompts(HuggingFacePrompts(**keys), 0)  # type: ignore[arg-type]
    assert [shown(prompts, index) for index in range(2)] == [["<red>", "a"], ["<blue>", "b"]]

    several = found.map(lambda each: {"images": [each["image"]]}, remove_columns="image")
    several = several.cast_column("images", datasets.List(datasets.Image()))
    several.save_to_disk(str(tmp_path / "several"))
    prompts = open_prompts(HuggingFacePrompts(**keys | {"dataset": str(tmp_path / "several")}), 0)  # type: ignore[arg-type]
    assert shown(prompts, 1)[1:] == ["b"]


def test_an_image_that_lies_in_the_store_is_not_written_again(tmp_path: Path) -> None:
    opened(tmp_path, [row(image="red.png")])
    (file,) = tmp_path.glob("blobs/content/*")
    written = file.stat().st_mtime_ns
    opened(tmp_path, [row(image="red.png")])
    assert file.stat().st_mtime_ns == written
    assert asyncio.run(Blobs(str(tmp_path / "blobs")).get(digest_of_image(RED))) == RED


def test_a_folder_for_each_label_is_a_prompt_set(tmp_path: Path) -> None:
    for label, data in (("cats", RED), ("dogs", BLUE)):
        (tmp_path / label).mkdir()
        for number in range(10):
            (tmp_path / label / f"{number}.png").write_bytes(
                encode_png(Image.new("RGB", (4, 4), (number, 0, 0))) + data
            )
    (tmp_path / "dogs" / "bad.png").write_bytes(b"no picture")
    table = FolderPrompts(source="folder", path=str(tmp_path), num_heldout=6)
    prompts = open_prompts(table, 0)
    assert (prompts.num_train, prompts.num_heldout) == (14, 6)
    assert {prompts.heldout(index).reference for index in range(6)} == {"cats", "dogs"}
    prompt = prompts.train(0)
    assert prompt.messages[0].content.startswith("Which of these does the picture show: cats, dogs?")
    assert prompt.labels == {"label": prompt.reference}
    assert "bad.png: 'image' is no image" in prompts.notes[1]
    for path, message in ((tmp_path / "cats", "has 0 folders"), (tmp_path / "absent", "no folder that can be read")):
        with pytest.raises(InvalidInputError, match=message):
            open_prompts(table.model_copy(update={"path": str(path)}), 0)
