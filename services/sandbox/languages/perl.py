"""Perl scripts."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, last_line

LANGUAGE = Language(
    name="perl",
    aliases=("pl",),
    extension=".pl",
    needs={"perl": ("perl",)},
    install="apt-get install perl",
    version=lambda tools: [str(tools["perl"]), "-e", "print $^V"],
    run=lambda tools, source, _built: [str(tools["perl"]), source.main],
    roots=lambda _: (*SYSTEM, Path("/usr/share/perl"), Path("/usr/share/perl5")),
    with_tests=last_line('print "WORD\\n";'),
    self_test="use List::Util 'sum';\nprint sum(map { $_ ** 2 } split ' ', <STDIN>), \"\\n\";\n",
)
