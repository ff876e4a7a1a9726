"""A question's text as curation compares it: cleaned, in plain signs, its clauses, words and numbers."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

_CONTROL = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0x7F: None, 0xFEFF: None, 0xFFFD: None}
_INVISIBLE = dict.fromkeys(
    [0x00AD, 0x034F, 0x061C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206F)]
)
_BLANKS = dict.fromkeys([0x00A0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
_LINE_ENDS = dict.fromkeys([0x0B, 0x0C, 0x85, 0x2028, 0x2029], "\n")
_CLEANED = _CONTROL | _INVISIBLE | _BLANKS | _LINE_ENDS
_INDENTED = re.compile(r"^(?: {2,}|\t)\S", re.MULTILINE)
_LABEL_WORDS = (
    "problem|question|exercise|task|puzzle|ques|prob|example|item|quiz|challenge|prompt|query|case|ex|no|nr|number|q|"
    "aufgabe|übung|frage|exercice|problème|ejercicio|problema|pregunta|esercizio|domanda|exercício|questão|opgave|vraag|"
    "oppgave|uppgift|zadanie|pytanie|задача|задание|вопрос|упражнение|题目|問題|问题|题|第"
)
_LABEL = re.compile(
    rf"""^\s*(?:
        (?:\#{{1,6}}|>+)\s+                                                                       # ### Find
      | \W{{0,5}}(?:{_LABEL_WORDS})\W{{0,3}}\d{{1,4}}\s*(?:of|/|von|de|из)\s*\d{{1,4}}\W{{0,3}}\s          # Question 3 of 60:
      | (?:{_LABEL_WORDS})\s+(?-i:[A-Z])\s*[.:)]\s                                               # Task C:
      | (?:№|n[°º])\s*\d{{1,4}}\s*[.:)\]/]?\s                                                    # № 3
      | (?:{_LABEL_WORDS})\s*\d{{1,4}}\s*题?\s*[.:)、：．]\s*                                      # Aufgabe 3:
      | [\[(]\s*\d{{1,3}}\s*(?:points?|marks?|pts?|p|punkte|puntos)\.?\s*[\])]\s*[.:]?\s           # (5 points)
      | \d{{1,4}}\s*(?:/|\.\)|\)\.|\):)\s+(?=\D)                                                  # 3/  3.)
      | (?:x{{0,3}}(?:ix|iv|v?i{{1,3}}|v|x))[.)]\s                                                  # ix.
      | """
    + r"""
        \W{0,5}(?:problem|question|exercise|task|puzzle|ques|prob|q)\b\W{0,3}\s*
            (?:\d+(?:\.\d+)*|[ivx]{1,5}(?=\s*[.:)\-–—]))\s*[.:)\]\-–—]?\**\s             # Problem 12:
      | \W{0,5}(?:example|item|quiz|challenge|prompt|query|case|ex|no|nr|number)\b\W{0,3}\s*
            \d+(?:\.\d+)*\s*[.:)\]\-–—]\**\s                                               # No. 12:
      | (?:problem|question|exercise|example|task|q|p)\d*\s*[:.)]\s                               # Question:  Q7.
      | (?:[\(\[]\s*(?:\d{1,4}|[a-z]|[ivx]{1,5})\s*[\)\]])[.:]?                                 # (3) [a]
      | \#\s*\d{1,4}\s*[.:)\-–—]?\s                                                             # #12
      | (?:\d{1,4}|[a-z])\s*[.:)](?=\s|[a-zA-Z]{2})                                             # 7.  b)
      | \d{1,3}(?:\.\d{1,3}){1,3}\s*[.:)](?=\s)                                                 # 2.1.
      | \d{1,4}\s+[\-–—]\s+(?=[a-zA-Z]{2}|(?-i:[A-Z]\ [a-z]))                                                      # 12 - Find
      | (?P<strong>\*{1,2}|_{1,2}|<(?:b|strong)>)\s*[\(\[]?\d{1,4}(?:\.\d{1,3}){0,3}\s*[.:)\]]?\s*
            (?:(?P=strong)|</(?:b|strong)>)\s*[.:)]?\s                                           # **2.4** Find
      | \d{1,3}(?:\.\d{1,3}){1,3}\s+(?=(?-i:[A-Z][a-z]*\ [a-z]))                                # 2.4 Find the
      | [\-*•·‣▪◦–—>]\s
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)

# --- Signs ------------------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_MIXED = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")  # 2½ is no 21/2
_CALL = re.compile(r"(?<=[^\W\d_]{2})!+")  # no factorial
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("×⋅∙·∗✕✖", "*"), **dict.fromkeys("÷∕⁄", "/"), **dict.fromkeys("−‐‑‒–﹣－", "-"),
        **dict.fromkeys("—―", " "), **dict.fromkeys("‘’‛ʼ`´′", "'"), "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=",
        "≠": "!=", "±": "+-", "√": " sqrt ", "∞": " infinity ", "°": " degrees ", "…": "...", "€": " euros ",
        "£": " pounds ", "∑": " sum ", "∫": " int ", "→": "->", "∈": " in ", "△": " triangle ", "∠": " angle ",
    }
)  # fmt: skip
_GREEK = str.maketrans(
    {
        letter: f" {name} "
        for letter, name in zip(
            "αβγδεζηθικλμνξοπρσςτυφχψω",
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau "
            "upsilon phi chi psi omega".split(),
            strict=True,
        )
    }
)
# Cyrillic letters that look like Latin ones, in texts that are Latin.
_LOOKALIKES = str.maketrans("аеорсухіјѕһԁԛԝкмтвнАЕОРСУХІЈЅКМТВН", "aeopcyxijshdqwkmtbhAEOPCYXIJSKMTBH")
_COMMANDS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=",
    "geq": ">=", "geqslant": ">=", "ne": "!=", "neq": "!=", "pm": "+-", "infty": "infinity", "circ": "degrees",
    "degree": "degrees", "ldots": "...", "cdots": "...", "dots": "...", "to": "->", "rightarrow": "->", "lt": "<",
    "gt": ">", "varepsilon": "epsilon", "varphi": "phi",
} | dict.fromkeys(
    """text textbf textit textrm texttt mathrm mathbf mathit mathsf mathcal mathbb emph operatorname boxed mbox hbox
    displaystyle textstyle left right big bigg bigl bigr biggl biggr quad qquad limits hspace vspace begin end item
    overline vec hat""".split(),
    "",
)  # fmt: skip
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?")
_ESCAPED = re.compile(r"\\([%$&_#{}])")
_LATEX_BLANK = re.compile(r"\\[,;:!>\\() \[\]]|~")
_GROUPED_DIGITS = re.compile(r"(?<=\d)(?:\{,\}|\\,|[   ])(?=\d{3}(?!\d))")
_WORD_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})\s*-\s*(?=[^\W\d_]{2})|(?<=\d)-(?=[^\W\d_]{2})")
_TIMES_X = re.compile(r"(?<=\d)\s*x\s*(?=\d)")
_POWER_STARS = re.compile(r"(?<=[\w)])\*\*(?=[\w(])")
_POSSESSIVE = re.compile(r"'s\b|(?<=s)'(?=\s)")
_CONTRACTIONS = (
    (re.compile(r"\b(what|who|where|how|when|that|there|it|he|she|here|let)'s\b"), r"\1 is"),
    (re.compile(r"\bcan't\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
)
_OPERAND = r"(\d[\d.,]*(?<=\d)|[a-z])"
_SPOKEN = (  # operations in words, of two numbers or variables
    (re.compile(rf"\b(?:sum|total) of {_OPERAND} and {_OPERAND}\b"), r"\1 + \2"),
    (re.compile(rf"\badd {_OPERAND} (?:and|to) {_OPERAND}\b"), r"\1 + \2"),
    (re.compile(rf"\bproduct of {_OPERAND} and {_OPERAND}\b"), r"\1 * \2"),
    (re.compile(rf"\bmultiply {_OPERAND} (?:and|by|with) {_OPERAND}\b"), r"\1 * \2"),
    (re.compile(rf"\bdifference (?:of|between) {_OPERAND} and {_OPERAND}\b"), r"\1 - \2"),
    (re.compile(rf"\bsubtract {_OPERAND} from {_OPERAND}\b"), r"\2 - \1"),
    (re.compile(rf"\bquotient of {_OPERAND} and {_OPERAND}\b"), r"\1 / \2"),
    (re.compile(rf"\bdivide {_OPERAND} by {_OPERAND}\b"), r"\1 / \2"),
)
_SPOKEN_WORDS = re.compile(r"\b(?:sum|total|add|product|multiply|difference|subtract|quotient|divide)\b")
_ASKS_TIME = re.compile(r"(?:^|(?<=[.?!]\s))\s*when (?=(?:was|did|does|do|were|will)\b)")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_ORDINALS = dict(
    enumerate("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), start=1)
)

# --- Words ------------------------------------------------------------------------------------------------------------

_WORD = re.compile(
    r"\d+(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|[^\W\d_]+|(?<!\w)_|[^\w\s.,;:?'\"()\[\]{}`“”‘’«»„…—–¿¡$|\\、。，？：；（）「」]"
)
_UNITS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_NUMBER_WORDS = frozenset({*_UNITS, *_TENS, *_SCALES, "dozen"})
_ONE_IS_NO_NUMBER_AFTER = frozenset("which this that each every any no another other the only".split())
_ONE_IS_NO_NUMBER_BEFORE = frozenset("of another can could should must has is".split())
_CLAUSE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_CONDITION = re.compile(r",?\s+(?=(?:if|when|given|where|provided|assuming)\b)|(?<=[^\W\d]),\s+(?=[^\W\d]{2})")
MIN_CLAUSE_WORDS = 3


def cleaned(text: str) -> str:
    """Text in Unicode's composed form, without control and invisible characters, with plain line ends and blanks.

    Blanks stay as they are where lines are indented or drawn: in programs, grids and pictures of characters.

    >>> cleaned("  What\\u200b is\\r\\n\\r\\n\\r\\n 2  +\\u00a02?  ")
    'What is\\n\\n2 + 2?'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.translate(_CLEANED)
    if "\n" in text and (drawing(text) or len(_INDENTED.findall(text)) > 1):
        return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n").rstrip()
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def drawing(text: str) -> str:
    """The lines that are no sentences: grids of letters, boards, pictures of characters; what is in them counts.

    >>> drawing("Solve this:\\n_ Q _\\nQ _ _\\n_ _ Q\\nGood luck.")
    '_ q _\\nq _ _\\n_ _ q'
    """
    if text.count("\n") < 3:
        return ""
    lines = [line.rstrip() for line in text.split("\n")]
    drawn = [_is_drawn(line) or _is_of_a_grid(lines, place) for place, line in enumerate(lines)]
    if sum(drawn) < 3:
        return ""
    return "\n".join(_as_drawn(line) for line, is_drawn in zip(lines, drawn, strict=True) if is_drawn)


def _is_drawn(line: str) -> bool:
    signs = [letter for letter in line if not letter.isspace()]
    if len(signs) < 3:
        return False
    tokens = line.split()
    return sum(letter.isalnum() for letter in signs) < 0.4 * len(signs) or (
        len(tokens) > 2 and all(len(token) == 1 for token in tokens)
    )


def _is_of_a_grid(lines: Sequence[str], place: int) -> bool:
    """Tests whether three lines of one length, each one word, stand together around a place."""
    length = len(lines[place])
    if length < 3 or " " in lines[place]:
        return False
    return any(
        all(
            0 <= at < len(lines) and len(lines[at]) == length and " " not in lines[at] for at in range(start, start + 3)
        )
        for start in (place - 2, place - 1, place)
    )


def _as_drawn(line: str) -> str:
    tokens = line.split()
    return (" ".join(tokens) if all(len(token) == 1 for token in tokens) else line).casefold()


def without_label(text: str) -> str:
    """A question without the number that a list gave it; a number that the question begins with stays.

    >>> without_label("Problem 12: (a) Find x"), without_label("3 apples cost 2"), without_label("3.5 apples")
    ('Find x', '3 apples cost 2', '3.5 apples')
    """
    for _ in range(4):
        shorter = _LABEL.sub("", text, count=1)
        if shorter == text or not shorter:
            return text
        text = shorter
    return text


# Phrases behind "how many", where they add nothing.
_FILLERS = re.compile(r"\b(?:in total|altogether|all together|in all|overall|all in all|as a total|in the end)\b")


def plain(text: str) -> str:
    """Text in lower case, in which one sign stands for one meaning, whether it was typeset or typed.

    >>> plain("What's $x^{2} \\\\times \\\\frac{1}{2}$?").split()
    ['what', 'is', '$x^', '2', '*', '(1)/(2)$?']
    >>> plain("x² × ½") .split()
    ['x^2', '*', '1/2']
    """
    if not text.isascii():
        text = _ascii_signs(text)
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _without_latex(text)
    text = text.casefold().replace("{", " ").replace("}", " ").replace('"', " ")
    if "'" in text:
        for pattern, put in _CONTRACTIONS:
            text = pattern.sub(put, text)
        text = _POSSESSIVE.sub("", text)
    if "-" in text:
        text = _WORD_HYPHEN.sub(" ", text)
    if "!" in text:
        text = _CALL.sub(". ", text)
    if "**" in text:
        text = _POWER_STARS.sub("^", text).replace("**", " ")
    text = _TIMES_X.sub("*", _FILLERS.sub(" ", text)).replace("squared", "^2").replace("cubed", "^3")
    if _SPOKEN_WORDS.search(text):
        for pattern, put in _SPOKEN:
            text = pattern.sub(put, text)
    text = _ASKS_TIME.sub("whattime ", text)
    return _ORDINAL.sub(lambda match: _ORDINALS.get(int(match[1][:3]), match[0]), text)


def _ascii_signs(text: str) -> str:
    text = _GROUPED_DIGITS.sub("", text)
    text = _POWER.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), _MIXED.sub(" ", text))
    text = unicodedata.normalize("NFKC", text).translate(_CLEANED | _SIGNS)
    if sum("a" <= letter.lower() <= "z" for letter in text) > sum("\u0400" <= letter <= "\u04ff" for letter in text):
        text = text.translate(_LOOKALIKES)
        folded = unicodedata.normalize("NFD", text.casefold())
        text = "".join(letter for letter in folded if not unicodedata.combining(letter)).translate(_GREEK)
    return text


def _without_latex(text: str) -> str:
    text = _GROUPED_DIGITS.sub("", text)
    for _ in range(3):  # fractions in fractions
        text, num_found = _FRACTION.subn(r" (\1)/(\2) ", text)
        if not num_found:
            break
    text = _SHORT_FRACTION.sub(r" \1/\2 ", text)
    text = _LATEX_BLANK.sub(" ", _ESCAPED.sub(r"\1", text).replace("^\\circ", " degrees "))
    return _COMMAND.sub(lambda match: f" {_COMMANDS.get(match[1].lower(), match[1])} ", text)


def words(text: str) -> list[str]:
    """Words, numbers and signs of mathematics in their plain form; other punctuation is left out.

    >>> words("Find X, if  x+1 = 1,200.50 or three.")
    ['find', 'x', 'if', 'x', '+', '1', '=', '1200.5', 'or', '3']
    """
    return _words_of_plain(plain(text))


def _words_of_plain(text: str) -> list[str]:
    found = [_number(word) if word[0].isdigit() else word for word in _WORD.findall(text)]
    return found if _NUMBER_WORDS.isdisjoint(found) else _in_digits(found)


def _number(written: str) -> str:
    digits = written.replace(",", "")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _in_digits(said: Sequence[str]) -> list[str]:
    """Number words as digits: twenty five is 25, two thousand one hundred and four is 2104. The pronoun `one` stays."""
    found: list[str] = []
    number: tuple[int, int] | None = None  # thousands and millions so far, and what follows them
    for place, word in enumerate(said):
        if (
            word == "and"
            and number
            and number[1] % 100 == 0
            and said[place + 1 : place + 2]
            and _starts(said[place + 1])
        ):
            continue
        is_number = word in _NUMBER_WORDS and not (word == "one" and _is_pronoun(said, place))
        longer = _continued(number, word) if is_number and number else None
        if number and not longer:
            found.append(str(number[0] + number[1]))
        number = longer or (_started(word) if is_number else None)
        if not is_number:
            found.append(word)
    return [*found, str(number[0] + number[1])] if number else found


def _starts(word: str) -> bool:
    return word in _UNITS or word in _TENS


def _started(word: str) -> tuple[int, int]:
    return (0, _SCALES.get(word, _UNITS.get(word, _TENS.get(word, 12))))


def _continued(number: tuple[int, int], word: str) -> tuple[int, int] | None:
    """A number with a further word; None if the word begins another number."""
    whole, part = number
    if word in _SCALES:
        if word == "hundred":
            return (whole, part * 100) if 0 < part < 100 else None
        return (whole + part * _SCALES[word], 0) if 0 < part < 1000 else None
    if not _starts(word):
        return None
    value = _UNITS.get(word, _TENS.get(word, 0))
    room = 10 if part % 100 >= 20 and part % 10 == 0 else 100 if part % 100 == 0 and whole + part else 0
    return (whole, part + value) if 0 < value < room else None


def _is_pronoun(said: Sequence[str], place: int) -> bool:
    before = said[place - 1] if place else ""
    after = said[place + 1] if place + 1 < len(said) else ""
    return before in _ONE_IS_NO_NUMBER_AFTER or after in _ONE_IS_NO_NUMBER_BEFORE


def clauses(text: str) -> list[list[str]]:
    """The words of each sentence, and of each clause that a comma or a condition sets apart, in their order."""
    parts = [part for sentence in _CLAUSE_END.split(plain(text)) for part in _CONDITION.split(sentence)]
    found: list[list[str]] = []
    for part in parts:
        said = _words_of_plain(part)
        if found and (len(said) < MIN_CLAUSE_WORDS or len(found[-1]) < MIN_CLAUSE_WORDS):
            found[-1] += said
        else:
            found.append(said)
    return found


def same_text_key(text: str) -> str:
    """A key that questions share which differ in case, blanks, punctuation, typesetting and list numbers alone."""
    text = cleaned(text)
    return " ".join(words(without_label(text))) + drawing(text)


def numbers(text: str) -> list[str]:
    """The numbers of a question in their order, without a list's: two questions with other ones ask other things."""
    return [word for word in words(without_label(cleaned(text))) if word[0].isdigit()]
