"""R scripts."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, last_line

LANGUAGE = Language(
    name="r",
    extension=".R",
    needs={"rscript": ("Rscript",)},
    install="apt-get install r-base-core",
    version=lambda tools: [str(tools["rscript"]), "--version"],
    run=lambda tools, source, _built: [str(tools["rscript"]), "--vanilla", source.main],
    roots=lambda _: (*SYSTEM, Path("/etc/R"), Path("/usr/share/R")),
    overhead_bytes=64 << 20,
    with_tests=last_line('cat("WORD\\n")'),
    self_test='n <- scan(file("stdin"), quiet = TRUE)\ncat(sum(n ^ 2), "\\n", sep = "")\n',
)
