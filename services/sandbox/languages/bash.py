"""Bash scripts."""

from __future__ import annotations

from services.sandbox.languages.language import Language, last_line

LANGUAGE = Language(
    name="bash",
    aliases=("sh", "shell"),
    extension=".sh",
    needs={"bash": ("bash",)},
    install="apt-get install bash",
    version=lambda tools: [str(tools["bash"]), "--version"],
    run=lambda tools, source, _built: [str(tools["bash"]), source.main],
    with_tests=last_line("echo WORD"),
    self_test="read -r a b\nseq 1 $((a * a + b * b)) | tail -n 1\n",
)
