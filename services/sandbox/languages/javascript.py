"""JavaScript, by Node."""

from __future__ import annotations

from collections.abc import Sequence

from services.sandbox.languages.language import Language, Source, Tools


def _run(tools: Tools, source: Source, _built: str) -> Sequence[str]:
    return [str(tools["node"]), source.main]


LANGUAGE = Language(
    name="javascript",
    aliases=("js", "node", "nodejs"),
    extension=".js",
    needs={"node": ("node", "nodejs")},
    install="apt-get install nodejs",
    version=lambda tools: [str(tools["node"]), "--version"],
    run=_run,
    overhead_bytes=64 << 20,
    self_test="""
const [a, b] = require("fs").readFileSync(0, "utf8").split(" ").map(Number);
console.log(a ** 2 + b ** 2);
""",
)
