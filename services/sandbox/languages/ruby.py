"""Ruby scripts."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language


def _with_tests(program: str, tests: str, word: str) -> str:
    """Test::Unit would run at the script's exit, behind its end; it is made to run before."""
    return f"""{program}
{tests}
if defined?(Test::Unit::AutoRunner)
  Test::Unit::AutoRunner.need_auto_run = false
  exit(1) unless Test::Unit::AutoRunner.run
end
puts "{word}"
"""


LANGUAGE = Language(
    name="ruby",
    aliases=("rb",),
    extension=".rb",
    needs={"ruby": ("ruby",)},
    install="apt-get install ruby",
    version=lambda tools: [str(tools["ruby"]), "--version"],
    run=lambda tools, source, _built: [str(tools["ruby"]), source.main],
    roots=lambda _: (*SYSTEM, Path("/usr/share/ruby"), Path("/usr/share/rubygems-integration")),
    with_tests=_with_tests,
    self_test="puts gets.split.sum { |n| n.to_i ** 2 }\n",
)
