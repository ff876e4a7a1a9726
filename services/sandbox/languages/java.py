"""Java, by javac. The class that starts is the one around `main`; its file has the name of the public one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

# One compiler tier: a program that runs for a second need not be tuned for an hour.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xss64m", "-ea"]
_END = "PeriluneEnd"
_ENDS = re.compile(rf"^class ({_END}\w+)", re.M)
_NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?(?:\*/|\Z)|"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])*'", re.DOTALL
)
_TOKEN = re.compile(r"[{}();]|@\s*[\w$.]+|[\w$]+(?:\s*\.\s*[\w$]+)*")
_KINDS = ("class", "interface", "enum", "record", "@interface")
_MAIN = re.compile(r"\bstatic\s+(?:final\s+|synchronized\s+)*void\s+main\s*\(")


@dataclass(frozen=True)
class _Type:
    """A type at the top level of a source, and where its text lies in it."""

    name: str
    is_public: bool
    start: int
    end: int


def main_class(text: str) -> str:
    """The class that the file is named after: the public one, else the one to start."""
    public = [kind.name for kind in _types(_code(text)) if kind.is_public]
    return public[0] if public else started_class(text)


def started_class(text: str) -> str:
    """The class to start: the one around `main`, of several the public one, else the first; without one, any."""
    code = _code(text)
    mains = [found.start() for found in _MAIN.finditer(code)]
    types = list(_types(code))
    starts = [kind for kind in types if any(kind.start <= at < kind.end for at in mains)]
    public = [kind.name for kind in starts or types if kind.is_public]
    return [*public, *(kind.name for kind in starts), *(kind.name for kind in reversed(types)), "Main"][0]


def _code(text: str) -> str:
    """The source with blanks for comments, strings and characters, each place as it was."""
    return _NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _types(code: str) -> Iterator[_Type]:
    depth, start, words, name = 0, 0, list[str](), ""
    for token in _TOKEN.finditer(code):
        text = token[0].replace(" ", "")
        if text in "{(":
            depth += 1
        elif text in "})":
            depth = max(0, depth - 1)
        elif depth == 0 and text != ";":
            if not words:
                start = token.start()
            if words and words[-1] in _KINDS and not name:
                name = text
            words.append(text)
        if depth == 0 and text in ("}", ";"):
            if name and text == "}":
                yield _Type(name, "public" in words, start, token.end())
            words, name = [], ""


def _package(text: str) -> str:
    found = re.search(r"^\s*package\s+([\w.\s]+?)\s*;", _code(text))
    return re.sub(r"\s", "", found[1]) if found else ""


def _build(tools: Tools, source: Source) -> Sequence[str]:
    jvm = ["-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-Xmx1g"]
    flags = ["-encoding", "UTF-8", "-nowarn", "-d", "classes"]
    return [str(tools["javac"]), *jvm, *flags, *source.arguments, *source.with_extension(".java")]


def _run(tools: Tools, source: Source, built: str) -> Sequence[str]:
    package = _package(source.text)
    main = [started_class(source.text), *_ENDS.findall(source.text)][-1]
    return [str(tools["java"]), *_JVM, "-cp", f"{built}/classes", f"{package}.{main}" if package else main]


def _heap(memory_bytes: int) -> Sequence[str]:
    """All of the job's memory; what the machine takes besides is its own overhead."""
    return [f"-Xmx{max(16, memory_bytes >> 20)}m", "-Xms16m"]


def _roots(tools: Tools) -> Sequence[Path]:
    home = tools["javac"].resolve().parent.parent
    return (*SYSTEM, home, *Path("/etc").glob("java-*-openjdk"))


def _with_tests(program: str, tests: str, word: str) -> str:
    """Started is a class of ours, which starts the tests' own."""
    text = f"{program}\n{tests}"
    out = "new java.io.PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out))"
    body = f'{started_class(text)}.main(arguments); {out}.println("{word}");'
    return (
        f"{text}\nclass {_END}{word} {{ public static void main(String[] arguments) throws Throwable {{ {body} }} }}\n"
    )


LANGUAGE = Language(
    name="java",
    extension=".java",
    needs={"javac": ("javac",), "java": ("java",)},
    install="apt-get install default-jdk-headless",
    version=lambda tools: [str(tools["javac"]), "--version"],
    main=lambda text: f"{main_class(text)}.java",
    build=_build,
    keep=("classes/**",),
    run=_run,
    roots=_roots,
    overhead_bytes=256 << 20,
    heap=_heap,
    with_tests=_with_tests,
    self_test="""
import java.util.*;

public class Main {
    public static void main(String[] arguments) {
        Scanner in = new Scanner(System.in);
        List<Integer> numbers = List.of(in.nextInt(), in.nextInt());
        System.out.println(numbers.stream().mapToInt(n -> n * n).sum());
    }
}
""",
)
