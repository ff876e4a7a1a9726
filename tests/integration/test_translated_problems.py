"""A translated problem in every language that is installed: right and wrong programs, in shapes that models write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from perilune.api.sandbox.v1.sandbox_pb2 import VERDICT_COMPILE_ERROR, VERDICT_OK
from perilune.client import SandboxClient
from perilune.concurrency import entered
from perilune.evaluation.translation import LANGUAGES, translated
from perilune.grading.codetests import judge_request
from perilune.local import own_sandbox

ROW: dict[str, Any] = {
    "task_id": "HumanEval/x",
    "prompt": 'def longer(words, n):\n    """ Words longer than n.\n    """\n',
    "entry_point": "longer",
    "test": "def check(candidate):\n    assert candidate(['ab', 'c', 'def'], 1) == ['ab', 'def']\n"
    "    assert candidate([], 1) == []\n",
}
# The body alone, and what stands around it.
BODIES = {
    "python": "    return [word for word in words if len(word) > n]\n",
    "java": "        List<String> found = new ArrayList<>();\n"
    "        for (String word : words) if (word.length() > n) found.add(word);\n        return found;\n",
    "cpp": "    vector<string> found;\n    for (auto& word : words) if ((long)word.size() > n) found.push_back(word);\n"
    "    return found;\n",
    "csharp": "        return words.Where(word => word.Length > n).ToList();\n",
    "javascript": "    return words.filter((word) => word.length > n);\n",
    "typescript": "    return words.filter((word) => word.length > n);\n",
    "php": "    return array_values(array_filter($words, fn($word) => strlen($word) > $n));\n",
    "bash": '    local found=()\n    for word in $1; do [ ${#word} -gt "$2" ] && found+=("$word"); done\n'
    '    echo "${found[*]}"\n',
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxClient]:
    with entered(own_sandbox(2)) as address, SandboxClient(address) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_right_programs_pass_and_wrong_ones_fail(language: str, sandbox: SandboxClient) -> None:
    if not any(each.name == language and each.version for each in sandbox.languages()):
        pytest.skip(f"{language} is not installed")
    row = next(each for each in translated(ROW) if each["language"] == language)
    whole = f"{row['prompt']}{BODIES[language]}{row.get('closing', '')}"
    function = whole.removeprefix(row["header"]).removeprefix(row.get("opening", ""))
    function = function.rstrip().removesuffix("}") if row.get("opening") else function
    for shape in (BODIES[language], whole, function):
        verdict = sandbox.verdict(judge_request("translated", row, shape))
        assert verdict.verdict == VERDICT_OK, (shape, verdict)
    wrong = sandbox.verdict(
        judge_request("translated", row, whole.replace("> n", "< n").replace("-gt", "-lt").replace("> $n", "< $n"))
    )
    assert wrong.verdict not in (VERDICT_OK, VERDICT_COMPILE_ERROR)
