"""Ruby scripts."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language

LANGUAGE = Language(
    name="ruby",
    aliases=("rb",),
    extension=".rb",
    needs={"ruby": ("ruby",)},
    install="apt-get install ruby",
    version=lambda tools: [str(tools["ruby"]), "--version"],
    run=lambda tools, source, _built: [str(tools["ruby"]), source.main],
    roots=lambda _: (*SYSTEM, Path("/usr/share/ruby"), Path("/usr/share/rubygems-integration")),
    self_test="puts gets.split.sum { |n| n.to_i ** 2 }\n",
)
