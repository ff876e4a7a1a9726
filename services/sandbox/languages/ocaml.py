"""OCaml, by its native compiler."""

from __future__ import annotations

from collections.abc import Sequence

from services.sandbox.languages.c import ROOTS
from services.sandbox.languages.language import Language, Source, Tools, last_line


def _build(tools: Tools, source: Source) -> Sequence[str]:
    libraries = ["-I", "+unix", "-I", "+str", "unix.cmxa", "str.cmxa"]
    return [str(tools["ocamlopt"]), "-w", "-a", *libraries, *source.arguments, source.main, "-o", "main"]


LANGUAGE = Language(
    name="ocaml",
    aliases=("ml",),
    extension=".ml",
    needs={"ocamlopt": ("ocamlopt",)},
    install="apt-get install ocaml-nox",
    version=lambda tools: [str(tools["ocamlopt"]), "-version"],
    build=_build,
    keep=("main",),
    run=lambda _tools, _source, built: [f"{built}/main"],
    roots=lambda _: ROOTS,
    with_tests=last_line(';; print_endline "WORD"'),
    self_test='let () = Scanf.scanf " %d %d" (fun a b -> Printf.printf "%d\\n" (a * a + b * b))\n',
)
