"""Lua scripts."""

from __future__ import annotations

from services.sandbox.languages.language import Language

LANGUAGE = Language(
    name="lua",
    extension=".lua",
    needs={"lua": ("lua", "lua5.4", "lua5.3", "luajit")},
    install="apt-get install lua5.4",
    version=lambda tools: [str(tools["lua"]), "-v"],
    run=lambda tools, source, _built: [str(tools["lua"]), source.main],
    self_test='local a, b = io.read("n", "n")\nprint(a * a + b * b)\n',
)
