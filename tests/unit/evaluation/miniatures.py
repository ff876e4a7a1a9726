"""Two rows of each benchmark in its own format, with a response that is right and one that is wrong."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

# The smallest picture that there is: one pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Er"
    "kJggg=="
)

CHECK = "def check(candidate):\n    assert candidate([2, 3]) == 5\n    assert candidate([]) == 0\n"
STDIO = [{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}]
READS = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
PRIVATE = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(STDIO)))).decode()

MINIATURES: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "mmlu": (
        [
            {"question": "What is 2 + 3?", "subject": "algebra", "choices": ["4", "5", "6", "7"], "answer": 1},
            {"question": "What is 4 + 1?", "subject": "algebra", "choices": ["5", "6", "7", "8"], "answer": 0},
        ],
        "It is five. Answer: B",
        "It is six. Answer: B",
    ),
    "ifeval": (
        [
            {
                "key": 1000,
                "prompt": "Name a river in at least 3 words, without commas.",
                "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
                "kwargs": [{"num_words": 3, "relation": "at least", "frequency": None}, {}],
            },
            {
                "key": 1001,
                "prompt": "Name a sea. Wrap it in double quotation marks.",
                "instruction_id_list": ["startend:quotation"],
                "kwargs": [{}],
            },
        ],
        "It is the Rhine",
        "the Baltic",
    ),
    "cluewsc": (
        [
            {
                "target": {"span1_text": "李明", "span1_index": 0, "span2_text": "他", "span2_index": 9},
                "text": "李明打电话给王刚，他很高兴。",
                "label": "true",
            },
            {
                "target": {"span1_text": "苹果", "span1_index": 0, "span2_text": "它", "span2_index": 9},
                "text": "苹果放在桌子上，它有四条腿。",
                "label": "false",
            },
        ],
        "他是打电话的人。答案是 A",
        "答案是 A",
    ),
    "ceval": (
        [
            {"id": 0, "question": "2 + 3 等于", "A": "4", "B": "5", "C": "6", "D": "7", "answer": "B"},
            {"id": 1, "question": "4 + 1 等于", "A": "5", "B": "6", "C": "7", "D": "8", "answer": "A"},
        ],
        "答案是 B",
        "答案是 C",
    ),
    "humaneval": (
        [
            {
                "task_id": f"HumanEval/{number}",
                "prompt": f'def total{number}(numbers):\n    """ The sum.\n    """\n',
                "entry_point": f"total{number}",
                "canonical_solution": "    return sum(numbers)\n",
                "test": CHECK,
            }
            for number in range(2)
        ],
        "```python\ndef total0(numbers):\n    return sum(numbers)\n```",
        "```python\ndef total1(numbers):\n    return len(numbers)\n```",
    ),
    "livecodebench": (
        [
            {
                "question_id": "abc",
                "question_content": "Print the sum of two numbers.",
                "starter_code": "",
                "public_test_cases": json.dumps(STDIO),
                "private_test_cases": PRIVATE,
                "metadata": "{}",
            },
            {
                "question_id": "def",
                "question_content": "Return the sum of two numbers.",
                "starter_code": "class Solution:\n    def add(self, x: int, y: int) -> int:\n        ",
                "public_test_cases": json.dumps([{"input": "2\n3", "output": "5", "testtype": "functional"}]),
                "private_test_cases": "[]",
                "metadata": json.dumps({"func_name": "add"}),
            },
        ],
        READS,
        "```python\nclass Solution:\n    def add(self, x, y):\n        return x\n```",
    ),
    "codeforces": (
        [
            {
                "id": f"1/{letter}",
                "description": f"Print the {what} of two numbers.",
                "input_format": "Two numbers.",
                "output_format": "One number.",
                "examples": [{"input": "2 3\n", "output": "5\n"}],
                "official_tests": [{"input": "4 4\n", "output": f"{result}\n"}],
            }
            for letter, what, result in (("A", "sum", 8), ("B", "sum or more", 9))
        ],
        READS,
        READS,
    ),
    "aime2024": (
        [
            {"ID": "2024-I-1", "Problem": "What is 100 + 104?", "Solution": "…", "Answer": 204},
            {"ID": "2024-I-2", "Problem": "What is 20 + 5?", "Solution": "…", "Answer": "025"},
        ],
        "So it is \\boxed{204}.",
        "So it is \\boxed{24}.",
    ),
    "math500": (
        [
            {"problem": "Halve 1.", "solution": "…", "answer": "\\frac{1}{2}", "unique_id": "test/algebra/1.json"},
            {"problem": "Halve 2.", "solution": "…", "answer": "1", "unique_id": "test/algebra/2.json"},
        ],
        "It is \\boxed{0.5}.",
        "It is \\boxed{2}.",
    ),
    "mmmu": (
        [
            {
                "id": "validation_Math_1",
                "question": "<image 1> How many pixels are there?",
                "options": "['1', '2']",
                "answer": "A",
                "image_1": PIXEL,
            },
            {
                "id": "validation_Math_2",
                "question": "How wide is <image 1> in pixels?",
                "options": "[]",
                "answer": "1",
                "image_1": PIXEL,
            },
        ],
        "Answer: A",
        "It is \\boxed{2}.",
    ),
    "mathvision": (
        [
            {"id": "1", "question": "How many? <image1>", "options": ["1", "2"], "image": PIXEL, "answer": "A"},
            {"id": "2", "question": "How wide? <image1>", "options": [], "image": PIXEL, "answer": "1"},
        ],
        "Answer: A",
        "It is \\boxed{2}.",
    ),
    "mathvista": (
        [
            {"pid": "1", "question": "How many?", "choices": ["1", "2"], "decoded_image": PIXEL, "answer": "1"},
            {"pid": "2", "question": "How wide?", "choices": None, "decoded_image": PIXEL, "answer": "1"},
        ],
        "Answer: A",
        "It is \\boxed{2}.",
    ),
}
