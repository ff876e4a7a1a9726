"""Lua scripts."""

from __future__ import annotations

from services.sandbox.languages.language import Language


def _with_tests(program: str, tests: str, word: str) -> str:
    """Tests by luaunit end with `os.exit`; theirs says the word, and is not the program's."""
    exits = f"exit_{word}"
    return f"""local {exits} = os.exit; {program}
local os = setmetatable({{exit = function(code, ...)
  if code == nil or code == true or code == 0 then io.write("{word}\\n") io.flush() end
  {exits}(code, ...)
end}}, {{__index = os}})
{tests}
io.write("{word}\\n")
"""


LANGUAGE = Language(
    name="lua",
    extension=".lua",
    needs={"lua": ("lua", "lua5.4", "lua5.3", "luajit")},
    install="apt-get install lua5.4",
    version=lambda tools: [str(tools["lua"]), "-v"],
    run=lambda tools, source, _built: [str(tools["lua"]), source.main],
    with_tests=_with_tests,
    self_test='local a, b = io.read("n", "n")\nprint(a * a + b * b)\n',
)
