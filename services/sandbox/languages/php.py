"""PHP, by its command line."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, last_line

LANGUAGE = Language(
    name="php",
    extension=".php",
    needs={"php": ("php",)},
    install="apt-get install php-cli",
    version=lambda tools: [str(tools["php"]), "--version"],
    # An assertion that fails throws; mistakes go to stderr, as everywhere else.
    run=lambda tools, source, _built: [
        *(str(tools["php"]), "-d", "zend.assertions=1", "-d", "assert.exception=1"),
        *("-d", "display_errors=stderr", "-d", "memory_limit=-1", source.main),
    ],
    roots=lambda _: (*SYSTEM, Path("/etc/php"), Path("/usr/share/php")),
    with_tests=last_line('echo "WORD\\n";'),
    self_test="<?php\n[$a, $b] = array_map('intval', explode(' ', fgets(STDIN)));\necho $a ** 2 + $b ** 2, PHP_EOL;\n",
)
