"""One way of writing: unicode, LaTeX and plain text of the same thing become the same string."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 2000  # a longer answer is no answer

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "±": r"\pm ",
    "∅": r"\emptyset ", "⟨": r"\langle ", "⟩": r"\rangle ", "ℝ": r"\mathbb{R}", "θ": r"\theta ", "α": r"\alpha ",
    "β": r"\beta ", "、": ",", "“": '"', "”": '"', "’": "'", "′": "'",
}  # fmt: skip
_FUNCTIONS = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp", "gcd", "lcm")

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)\\[!,;:> ]|\\q?quad\b|~", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])\.?", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
        (r"\\(?:mathrm|mathbf|mathit|textbf|textit|textrm|mbox|operatorname)\s*\{", r"\\text{"),
        (r"\\begin\{(?:[bpvBV]?matrix|array)\}(?:\{[lcr|]+\})?", r"\\begin{pmatrix}"),
        (r"\\end\{(?:[bpvBV]?matrix|array)\}", r"\\end{pmatrix}"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\\(?:varnothing|O(?![a-zA-Z]))", r"\\emptyset "),
        (r"\\(?:degree|deg)(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ", r"^\\circ "),
        (r"\{,\}", ","),
        (r"\*\*", "^"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])(?:sqrt|√)\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (rf"(?<![a-zA-Z\\])({'|'.join(_FUNCTIONS)})(?=[\s(\d])", r"\\\1 "),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\b(?:percent|pct)\b|\\%", "%"),
        (r"\\(?:dots|ldots|cdots)(?![a-zA-Z])", "..."),
        (r"\s*\*\s*", r" \\cdot "),
    )
]


def normalise(text: str) -> str:
    """The text in one notation; equal strings are equal answers, different ones may still be."""
    text = text[: MAX_CHARS + 1].strip()
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    for symbol, latex in _SYMBOLS.items():
        text = text.replace(symbol, latex)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    text = _without_delimiters(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _tidy(text)


def _without_delimiters(text: str) -> str:
    r"""Without the marks of math mode and of emphasis. A `$` that only opens is a currency."""
    text = text.strip().strip("*").strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            if opening[0] != "$" or "$" not in inner.replace(r"\$", ""):
                return inner.strip()
            return text.replace("$$", " ").replace("$", " ").strip()  # `$2$ and $3$`
    if text.count("$") - text.count(r"\$") == 2 and not text.startswith(r"\$"):
        return re.sub(r"(?<!\\)\$", " ", text).strip()
    return text


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1", text)
    text = re.sub(r"(?<=[\d\w)}\]]) ?([+\-/=<>,;^_]) ?(?=\S)", r"\1", text)
    text = re.sub(r"\^\{([0-9a-zA-Z])\}", r"^\1", text)
    text = re.sub(r"_\{([0-9a-zA-Z])\}", r"_\1", text)
    text = re.sub(r"([,;]) ", r"\1", text)
    return re.sub(r"[.,;。]+$", "", text).strip()
