"""One way of writing: unicode, LaTeX and plain text of the same thing become the same string."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from services.reward.equality.numerals import expand_chinese, expand_scales

MAX_CHARS = 2000  # a longer answer is no answer

# LaTeX that went through a string literal: `\frac` begins with a form feed there, `\binom` with a backspace.
_ESCAPED = {"\f": ("f", "rac"), "\b": ("b", "oxed|inom|egin|eta")}
_ESCAPES = [(sign, re.compile(f"{sign}(?={rest})"), rf"\\{letter}") for sign, (letter, rest) in _ESCAPED.items()]

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
        "÷": r"\div ", "⁄": "/", "∕": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ",
        "⩾": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "º": r"^\circ ",
        "±": r"\pm ", "∓": r"\mp ", "∅": r"\emptyset ", "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ",
        "〉": r"\rangle ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
        "∠": r"\angle ", "≈": r"\approx ", "∴": " ", "∑": r"\sum ", "∫": r"\int ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]",
        "≡": r"\equiv ", "∶": ":", "：": ":",
        "、": ",", "“": '"', "”": '"', "’": "'", "′": "'", "。": ". ", "；": ";", "→": r"\to ", "Ω": r"\Omega ",
    }
)  # fmt: skip
_GREEK_LETTERS = {
    unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}"): "\\" + (name if case == "SMALL" else name.title()) + " "
    for case, names in (
        ("SMALL", "alpha beta gamma delta epsilon zeta eta theta iota kappa nu xi rho sigma tau phi chi psi omega"),
        ("CAPITAL", "gamma delta theta xi sigma phi psi"),
    )
    for name in names.split()
} | {"λ": r"\lambda ", "Λ": r"\Lambda "}
_FUNCTIONS = (
    "arcsin arccos arctan arsinh arcosh artanh sinh cosh tanh sin cos tan cot sec csc ln log lg exp gcd lcm cis max det"
).split()


def _needs_backslash(pattern: str) -> bool:
    """Tests whether every alternative of an expression begins with one: most texts have none, and save the attempt."""
    alternatives = re.sub(r"\\\\", "@", pattern)  # an escaped backslash
    while (shorter := re.sub(r"\((?:[^()\\]|\\.)*\)", "", alternatives)) != alternatives:
        alternatives = shorter
    return all(alternative.startswith("@") for alternative in alternatives.split("|"))


_REWRITES = [
    (re.compile(pattern), replacement, _needs_backslash(pattern))
    for pattern, replacement in (
        (r"\\text(?:rm|bf)?\{\s*:\s*\}|\\colon(?![a-zA-Z])|\{:\}", ":"),
        (r"\\(?:textdollar|mathdollar)(?![a-zA-Z])", r"\\$"),
        (r"\\(?:euro|texteuro)(?![a-zA-Z])(?:\s*\{([\d.,]+)\})?", r"€\1"),
        (r"\\(?:pounds|textsterling)(?![a-zA-Z])", "£"),
        (r"\\(?:yen|textyen)(?![a-zA-Z])", "¥"),
        (r"\\(?:cent|textcent)(?![a-zA-Z])", "¢"),
        (r"\\(?:text|mathrm|textbf|mbox)\{\s*(?:US)?\s*(\\?[$€£¥₹])\s*([\d.,]*)\s*\}", r"\1\2"),
        (r"\\(?:text|mathrm)\{\s*(USD?|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?)\s*\}\s*(?=\\?[\d$])", r"\1 "),
        (r"US\s*(?=\\\$)", ""),
        (r"\\textcircled\s*\{?(\d+)\}?(?=\s*\\textcircled)", r"\1,"),
        (r"\\textcircled\s*\{?(\d+)\}?", r"\1"),
        (r"\\overset\s*\{\s*(?:\.|\\cdot\s*|\\bullet\s*)\}\s*\{?(\d)\}?", r"\\dot{\1}"),
        (r"\+(?:\s*/\s*-|(?<![\w)}\]+]\+)-(?=\d))", r"\\pm "),
        (r"\\{4}", r"\\\\"),
        (
            r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|begin|end|left|right|text|pi|infty|cdot|times|pm|sin|cos|tan|ln|log|leq?|geq?|lt|gt"
            r"|neq?|in|cup|mathbb|theta|alpha|beta|approx|overline|binom|circ)(?![a-zA-Z]))",
            r"\\",
        ),
        (r"(?<=[\d,])\\[!,] ?(?=\d{3})", ""),
        (r"(?<!\\)\\[!,;:> ]|\\q?quad\b|~|\\hspace\{[^{}]*\}|\\mathopen|\\mathclose", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?|middle)(?![a-zA-Z])\.?|\\(?:displaystyle|textstyle|limits|nolimits)\b", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]?binom(?![a-zA-Z])", r"\\binom"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"(?:\{\})?[_^]\{?(\d+)\}?\s*C_\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        (r"(?<![a-zA-Z}])C_\{?(\d+)\}?\^\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne "),
        (
            r"\\(?:mathrm|operatorname\*?|text|textrm)\s*\{\s*(sin|cos|tan|log|ln|arcsin|arccos|arctan|arsinh|arcosh|artanh|gcd|lcm|cis)\s*\}",
            r"\\\1 ",
        ),
        (r"\\(?:mathrm|mathit|text|textrm|mathsf)\s*\{\s*([ei])\s*\}", r"\1"),
        (r"\\mathbf\s*\{\s*([ijk])\s*\}|\\hat\s*\{?\s*\\?([ijk])(?:math)?\s*\}?", r"\\unit\1\2 "),
        (r"\\(?:mathbf|boldsymbol|vec|overrightarrow|mathcal)\s*\{([a-zA-Z]{1,2}|0)\}", r"\1"),
        (
            r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textnormal|textsf|mbox|hbox|operatorname)\s*\{",
            r"\\text{",
        ),
        (r"\\begin\{(?:[bpB]?matrix|smallmatrix|array)\}\s*(?:\{[lcr|\s]+\})?", r"\\begin{pmatrix}"),
        (
            r"[(\[]?\s*\\begin\{pmatrix\}(.*?)\\end\{(?:[bpB]?matrix|smallmatrix|array)\}\s*[)\]]?",
            r"\\begin{pmatrix}\1\\end{pmatrix}",
        ),
        (r"\\text\{\s*(-?[\d.,/]+)\s*\}", r"\1"),
        (r"\\text\{\s*(-?\d[\d.,/]*) ([^{}]*)\}", r"\1\\text{ \2}"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:varnothing|O(?![a-zA-Z])|emptyset)(?![a-zA-Z])", r"\\emptyset "),
        (r"\\mathbb\s*\{?\s*([RZNQC])\s*\}?|\\(?:R|Reals)(?![a-zA-Z])", r"\\mathbb{\1}"),
        (r"\\degree(?:s)?(?![a-zA-Z])|\\deg(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ", r"^\\circ "),
        (r"\s*\{\s*,\s*\}", ","),
        (r"\*\*", "^"),
        (r"\\(?:dots|ldots|cdots|dotsc|dotsb)(?![a-zA-Z])|…", "..."),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])(?![{])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*(?=[{\\])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"(\\sqrt\[\w\])\s*\(([^()]*)\)", r"\1{\2}"),
        (r"(\\sqrt\[\w\])\s*([0-9a-zA-Z]+)", r"\1{\2}"),
        (r"(?<![a-zA-Z\\])(?:sqrt|√)\s*\(((?:[^()]|\([^()]*\))*)\)", r"\\sqrt{\1}"),
        (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√\s*(?=\{)", r"\\sqrt"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (
            r"(?<![a-zA-Z\\])((?<!\d)(?<!\d )min|"
            + "|".join(_FUNCTIONS)
            + r")(?=\s*[(\d\\^_]|\s+[a-zA-Z](?![a-zA-Z]))",
            r"\\\1 ",
        ),
        (r"\\mathbb\{\}", r"\\mathbb{R}"),
        (r"(?<![\w}])\+\s*\\infty", r"\\infty"),
        (r"\s*(?:\bper ?cent\b|\bpct\b|\bpercentage(?: points?)?\b|\\%|％)", "%"),
        (r"(?<=\d)\s*[xX]\s*10\s*\^", r"\\times 10^"),
        (r"\s*\*\s*", r" \\cdot "),
        (r"\\(?:cdotp|bullet|ast)(?![a-zA-Z])", r"\\cdot "),
        (r"\\mid(?![a-zA-Z])", "|"),
        (r"\\lvert|\\rvert|\\vert(?![a-zA-Z])", "|"),
        (r"\\(?:lang|langle)(?![a-zA-Z])", r"\\langle "),
        (r"\\imaginaryI(?![a-zA-Z])", "i "),
        (r"^[^,;]*=[^,;]*\\(?:implies|Rightarrow|Longrightarrow)(?![a-zA-Z])(?=[^=]*=)", ""),
        (r"\\(?:therefore|implies|Rightarrow|Longrightarrow)(?![a-zA-Z])", " "),
    )
]
# Recurring decimals: a period with a bar over it or in brackets, with dots over its ends, or written out a few times.
_REPEATING = re.compile(
    r"(?<![\d.])(?P<whole>\d*)\.(?P<fixed>\d*?)"
    r"(?:\\(?:overline|bar)\s*\{?(?P<barred>\d+)\}?|\((?P<bracketed>\d+)\)"
    r"|\\dot\s*\{?(?P<first>\d)\}?(?:(?P<middle>\d*)\\dot\s*\{?(?P<last>\d)\}?)?"
    r"|(?P<once>(?P<digit>\d)(?P=digit){2,}|(?P<group>\d{2,6}?)(?P=group)+)(?=\.\.\.)"
    r"|(?P<double>\d)(?P=double)(?=\.\.\.))(?:\.\.\.)?"
)
_ORDINAL = re.compile(
    r"(?<=[\d)n])\s*(?:\^\s*\{?\s*)?(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|(?<=[\d^{)\s])(?:st|nd|rd|th)(?![a-zA-Z]))\s*\}?"
    r"(?:(?<=\})|(?![\w}]))"
)
_ORDINAL_AS_TEXT = re.compile(r"\\text\{\s*(\d+)\s*(?:st|nd|rd|th)\s*\}")
_ORDINAL_ENDS = ("st", "nd", "rd", "th")
_VULGAR = re.compile(r"(\d?)\s*([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒])")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f']\d{3})+(?![\d,/])")
_THOUSANDS = re.compile(r"^[^\d,()\[\]]*[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?[^\d,()\[\]]*(?:\^\{?\d\}?)?$")
_SUM_WITH_THOUSANDS = re.compile(
    r"^(?=.*\d,\d)(?:[^,()\[\]{}]|(?<=\d),(?=\d{3}(?!\d)))*=(?:[^,()\[\]{}]|(?<=\d),(?=\d{3}(?!\d)))*$"
)
_POINT_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.])")
_SETS_OF_NOTHING = re.compile(r"^\{(?:[{}, ]|\\emptyset ?)*\}$")
_PLAIN_SETS = re.compile(r"^\{[^{}]*\}(?:\s*\\c[ua]p\s*\{[^{}]*\})*$")
_BRACED_ARRAY = re.compile(
    r"(?:\\left\s*)?\\\{\s*\\begin\{(array|aligned|matrix)\}(?:\{[lcr|\s]*\})?(.*?)\\end\{\1\}(?:\s*\\right\s*\.)?(?!\s*(?:\\right)?\s*\\\})",
    re.DOTALL,
)
_CASES = re.compile(
    r"\\begin\{(?:[dr]?cases|aligned|align\*?)\}(.*?)\\end\{(?:[dr]?cases|aligned|align\*?)\}", re.DOTALL
)
# A second cell that is a condition, and not the rest of an aligned equation.
_CONDITION = re.compile(r"&\s*(?!=|\\[lgn]e(?![a-z])|<|>)\S|\\text\{\s*,?\s*(?:if|for|when|otherwise|else)\b")


def normalise(text: str) -> str:
    """The text in one notation; equal strings are equal answers, different ones may still be."""
    text = repaired(text[: MAX_CHARS + 1]).strip()
    if not text.isascii():
        text = _ascii(text)
    text = _without_delimiters(text)
    if "\\begin" in text:
        text = _CASES.sub(_system, _BRACED_ARRAY.sub(r"\\begin{cases}\2\\end{cases}", text))
    if any(end in text for end in _ORDINAL_ENDS):
        text = _ORDINAL.sub("", _ORDINAL_AS_TEXT.sub(r"\1", text))
    for pattern, replacement, needs_backslash in _REWRITES:
        if not needs_backslash or "\\" in text:
            text = pattern.sub(replacement, text)
    if "." in text:
        text = _POINT_THOUSANDS.sub(lambda match: match[0].replace(".", ""), _REPEATING.sub(_exact, text))
    text = _GROUPED.sub(lambda match: re.sub(r"[\s']", "", match[0]), expand_scales(text))
    if _THOUSANDS.match(text) or _SUM_WITH_THOUSANDS.match(text):
        text = text.replace(",", "")
    return _tidy(text)


def _system(match: re.Match[str]) -> str:
    """A system of equations as a list; the pieces of a function keep their conditions (`piecewise`)."""
    if _CONDITION.search(match[1]):
        return rf"\begin{{cases}}{match[1]}\end{{cases}}"
    return match[1].replace("&", "").replace(r"\\", ";").strip("; \n")


def repaired(text: str) -> str:
    """The text with the backslashes of LaTeX that a string literal has eaten."""
    for sign, escape, letter in _ESCAPES:
        if sign in text:
            text = escape.sub(letter, text)
    return text


def _ascii(text: str) -> str:
    text = re.sub(r"(?:\d\u0305)+", lambda match: rf"\overline{{{match[0].replace(chr(0x305), '')}}}", text)
    text = re.sub(r"(\d)\u0307", r"\\dot{\1}", text)
    text = re.sub(r"[①-⑳](?=\s*[①-⑳])", r"\g<0>,", text)
    text = "".join(character for character in text if unicodedata.category(character) not in ("Cf", "Co"))
    text = _VULGAR.sub(_vulgar, text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text.translate(_SYMBOLS)).translate(_SYMBOLS)
    text = "".join(_GREEK_LETTERS.get(character, character) for character in text)
    text = "".join(str(unicodedata.digit(c)) if c.isdecimal() and not c.isascii() else c for c in text)
    return expand_chinese(text)


def _vulgar(match: re.Match[str]) -> str:
    value = Fraction(unicodedata.numeric(match[2])).limit_denominator(20)
    return f"{match[1]}{' ' * bool(match[1])}{value.numerator}/{value.denominator}"


def _exact(match: re.Match[str]) -> str:
    """A recurring decimal as the fraction it is."""
    parts = match.groupdict(default="")
    period = (
        parts["barred"]
        or parts["bracketed"]
        or parts["first"] + parts["middle"] + parts["last"]
        or parts["group"]
        or parts["digit"]
        or parts["double"]
    )
    scale = 10 ** len(parts["fixed"])
    value = Fraction(int((parts["whole"] or "0") + parts["fixed"]), scale)
    value += Fraction(int(period), scale * (10 ** len(period) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _without_delimiters(text: str) -> str:
    r"""Without the marks of math mode and of emphasis. A `$` that only opens is a currency."""
    text = re.sub(r"\*\*([^*]+)\*\*|__([^_]+)__", r"\1\2", text).replace("`", "").replace(r"\"", '"').strip()
    if text.startswith('"') and text.endswith('"'):
        text = text.strip('" ')
    text = text.strip().strip("`").strip().rstrip("\\").strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            if opening[0] != "$" or "$" not in inner.replace(r"\$", ""):
                return _without_delimiters(inner)
            return text.replace("$$", " ").replace("$", " ").strip()  # `$2$ and $3$`
    text = re.sub(r"\\[()\[\]](?!\s*\d*(?:pt|em|ex)\])", " ", text) if re.search(r"\\[(\[]", text) else text
    if text.count("$") - text.count(r"\$") == 2 and not re.match(r"^\\?\$\s*\d[\d.,]*$", text):
        return re.sub(r"(?<!\\)\$", " ", text).strip()
    return text


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1", text)
    text = re.sub(r"(?<=[\d\w)}\]]) ?([+\-/=<>^_]) ?(?=\S)", r"\1", text)
    text = re.sub(r"(?<=[(\[{=<>]) (?=\S)|(?<=\S) (?=[)\]}])", "", text)
    text = re.sub(r"\^\{([0-9a-zA-Z])\}", r"^\1", text)
    text = re.sub(r"_\{([0-9a-zA-Z])\}", r"_\1", text)
    text = re.sub(r" ?([,;]) (?!\d{3}(?!\d))", r"\1", text)  # `32, 349` is two numbers
    text = re.sub(
        r"(?<!\.)\.$|[,;。!]+$" if not re.search(r"[\da-zA-Z)]!$", text) else r"(?<!\.)\.$|[,;。]+$", "", text
    ).strip()
    if (_PLAIN_SETS.match(text) and ("," in text or "\\c" in text)) or _SETS_OF_NOTHING.match(text):
        text = text.replace("{", r"\{").replace("}", r"\}")
    return text
