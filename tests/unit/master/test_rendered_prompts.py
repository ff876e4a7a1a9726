"""Prompts whose text is drawn: the same answers, a share of them, and each held-out one in both forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perilune.errors import InvalidInputError
from perilune.images import digest_of_image
from perilune.images.rendering import RenderTable
from perilune.recipe import JsonlPrompts, TaskPrompts
from services.master.prompts import PromptSet, open_prompts

TEXT = TaskPrompts(source="task", name="chains", num_train=100, num_heldout=10)
SMALL = {"width": 64, "height": 64, "min_size": 14, "max_size": 14}


def chains(**render: Any) -> PromptSet:
    table = TaskPrompts(
        source="task", name="chains", num_train=100, num_heldout=10, render=RenderTable(**SMALL | render)
    )
    return open_prompts(table, 1)


PLAIN = open_prompts(TEXT, 1)


def test_a_share_is_drawn_with_the_same_answers() -> None:
    prompts = chains(share=0.5)
    forms = [prompts.train(index).labels["form"] for index in range(100)]
    assert 30 < forms.count("picture") < 70
    for index, form in enumerate(forms):
        prompt, text = prompts.train(index), PLAIN.train(index)
        assert prompt.reference == text.reference
        assert prompts.labels(index) == prompt.labels == {"difficulty": "3", "form": form}
        images = prompts.drawn_images(index, held_out=False)
        assert [image.digest for image in prompt.images] == [digest_of_image(data) for data in images]
        assert len(images) == (form == "picture")
        assert prompt.messages[0].content == ("" if form == "picture" else text.messages[0].content)


def test_held_out_problems_are_asked_as_text_and_as_picture() -> None:
    prompts = chains()
    assert prompts.num_heldout == 20
    for index in range(10):
        text, picture = prompts.heldout(2 * index), prompts.heldout(2 * index + 1)
        assert (text.labels["form"], picture.labels["form"]) == ("text", "picture")
        assert text.reference == picture.reference == PLAIN.heldout(index).reference
        assert not prompts.drawn_images(2 * index, held_out=True)
        (data,) = prompts.drawn_images(2 * index + 1, held_out=True)
        assert picture.images[0].digest == digest_of_image(data)
    alone = chains(compare=False)
    assert [alone.heldout(index).labels["form"] for index in range(alone.num_heldout)] == ["picture"] * 10


def test_the_digest_covers_how_it_is_drawn() -> None:
    assert len({chains().digest, chains(noise=0.1).digest, PLAIN.digest}) == 3
    assert chains().digest == chains().digest


def test_rows_that_cannot_be_drawn_stay_text_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [{"question": text, "answer": "1"} for text in ("plain", "naïve", "last")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = JsonlPrompts(source="jsonl", path=str(path), num_heldout=1, system="Be brief.", render=RenderTable())
    prompts = open_prompts(table, 0)
    assert [prompts.train(index).labels["form"] for index in range(2)] == ["picture", "text"]
    assert [turn.role for turn in prompts.train(0).messages] == ["system", "user"]
    assert prompts.train(0).messages[0].content == "Be brief."
    assert prompts.notes[-1].startswith("1 of 2 prompts that were looked at stay text, the first because the font")

    path.write_text("".join(json.dumps(row) + "\n" for row in (rows[1], rows[2])))
    with pytest.raises(InvalidInputError, match=r"prompts\.render: no question can be drawn; the first: the font"):
        open_prompts(table, 0)
