"""Answers in words: the same words, or others for the same, and never their negation."""

from __future__ import annotations

import re

# Each row is one meaning.
_MEANINGS = """
no solution|no solutions|no real solution|no real solutions|no real roots|no roots|no such|none exist
no solution|无实数根|无实根|无实数解|empty set|\\emptyset|\\{\\}|无解|没有解|空集
does not exist|dne|doesn't exist|undefined|不存在|nonexistent|not exist|not defined
yes|是|是的
no|否|不是
true|t|correct|正确|对|right
false|f|incorrect|wrong|错误|错|不正确|不对
infinitely many|infinite|infinitely|无穷多|无数|无穷多个|无数个|infinitely many solutions|无穷多解
\\infty|positive \\infty|infinity|+\\infty|positive infinity|正无穷
-\\infty|negative \\infty|minus \\infty|negative infinity|minus infinity|负无穷
\\mathbb{R}|all real|all reals|all real numbers|reals|real numbers|r|全体实数|实数集
\\mathbb{N}|natural numbers|the natural numbers|all natural numbers|自然数|自然数集
\\mathbb{Z}|integers|all integers|the integers|整数|整数集|全体整数
cannot|can not|no it cannot|不能|不可以
impossible|not possible|cannot be determined|不可能|无法确定|不能确定
equal|the same|相等|相同
odd|奇数|奇函数|奇
even|偶数|偶函数|偶
increase|increasing|increases|rises|增大|变大|增加|递增|单调递增|增函数
decrease|decreasing|decreases|falls|减小|变小|减少|递减|单调递减|减函数
unchanged|remains the same|stays the same|does not change|no change|remains unchanged|constant|不变
convergent|converges|converge|收敛
divergent|diverges|diverge|发散
parallel|平行|互相平行
perpendicular|orthogonal|垂直|互相垂直
acute triangle|锐角三角形|acute
right triangle|right-angled triangle|直角三角形
obtuse triangle|钝角三角形|obtuse
isosceles triangle|等腰三角形|isosceles
equilateral triangle|等边三角形|正三角形|equilateral|regular triangle
isosceles right triangle|等腰直角三角形|right isosceles triangle
rectangle|长方形|矩形
square|正方形
rhombus|菱形
parallelogram|平行四边形
trapezoid|trapezium|梯形
circle|圆
ellipse|椭圆
hyperbola|双曲线
parabola|抛物线
straight line|line|直线
prime|prime number|质数|素数
composite|composite number|合数
rational|rational number|有理数
irrational|irrational number|无理数
positive|正数
negative|负数
first quadrant|quadrant i|quadrant 1|1st quadrant|quadrant one|第一象限
second quadrant|quadrant ii|quadrant 2|2nd quadrant|quadrant two|第二象限
third quadrant|quadrant iii|quadrant 3|3rd quadrant|quadrant three|第三象限
fourth quadrant|quadrant iv|quadrant 4|4th quadrant|quadrant four|第四象限
sufficient but not necessary|sufficient but not necessary condition|充分不必要条件|充分而不必要条件|充分不必要
necessary but not sufficient|necessary but not sufficient condition|必要不充分条件|必要而不充分条件|必要不充分
necessary and sufficient|necessary and sufficient condition|充要条件|充分必要条件|充要
neither sufficient nor necessary|neither sufficient nor necessary condition|既不充分也不必要条件|既不充分又不必要条件
monday|mon|星期一|周一
tuesday|tue|星期二|周二
wednesday|wed|星期三|周三
thursday|thu|星期四|周四
friday|fri|星期五|周五
saturday|sat|星期六|周六
sunday|sun|星期日|星期天|周日
""".strip()
_MEANING = {phrase: row.split("|")[0] for row in _MEANINGS.splitlines() for phrase in row.split("|")}

# Words that may be there or not.
_FILLER_WORDS = """
a an the is are it its there they answer number numbers function functions solution solutions series sequence curve
graph limit option choice shape set value so thus hence therefore of integral statement root roots exactly direction in
due them with respect about to
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_NEGATIONS = re.compile(
    r"\b(?:not|no|never|non|neither|nor|isn't|aren't|doesn't|don't|can't|cannot|none)\b|n't\b|\bnon|[不非未没无否]"
)
_SUBJECT = re.compile(
    r"^(?!.*\b(?:false|wrong|incorrect)\b.*\bis\b).*\b(?:is|are|was|were|be|equals)\s+(?=\S)", re.DOTALL
)
_CHINESE_SUBJECT = re.compile(r"^(?:.*(?:答案|结果|结论|此?方程|该?图形)?(?:是|为|：|:)|此?方程|原方程|该?函数)")
_CHOICE = re.compile(r"^\(?([A-Z])\)?$")
_CHOICE_AND_TEXT = re.compile(r"^(?:\(([A-Z])\)|([A-Z])[.:)]|([A-Z])(?=\s+[A-Z][a-z]))\s*(\S.*)?$", re.DOTALL)
_SYNONYMS = {"different": "distinct", "unequal": "distinct", "max": "maximum", "min": "minimum", "whole": "entire"}
_LISTED = re.compile(r",|\band\b|[和、]")  # what may come in another order
_VERDICTS = frozenset(("yes", "no", "true", "false"))
# `Yes, it does.`, as long as nothing is taken back.
_VERDICT = re.compile(
    r"(yes|no|true|false|correct|incorrect|是的?|不是|否|对|错)[,.;:，。](?!.*\b(?:but|wait|yes|no|true|false)\b)"
)
_AS_SUBJECT = re.compile(r" (?:is|was|has|had|will be) (?:the|correct|right)\b(?!.*\bor\b)")  # `Alice is the tallest`
MAX_SURE_WORDS = 4  # a longer reference may be said in ways that only a judge knows


def symbol_of(words: str) -> str | None:
    """The symbol that stands for a phrase: \\infty for `infinity`."""
    symbol = _MEANING.get(words, "")
    return symbol if symbol.startswith(("\\inf", "-\\inf", "\\mathbb")) else None


def plain(text: str) -> str:
    """Words without marks of LaTeX, quotes and punctuation around them, in lower case."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    return " ".join(text.strip(" \"'.,;:!?*_").casefold().split())


def is_text(text: str) -> bool:
    """Tests whether it is a word or several, and no formula."""
    if _CHOICE.match(text) or text.strip() in _MEANING or plain(text) in _MEANING:
        return True
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    if re.search(r"[^\W\d_a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", bare)):
        return True
    if re.search(r"[=<>^_\\+*/{}]|\d", bare):
        return r"\text" in text and not re.search(r"[=<>^_+*/]", bare) and len(re.findall(r"[a-zA-Z]{2,}", bare)) > 1
    return re.search(r"[a-zA-Z]{3,}", bare) is not None or (r"\text" in text and bare.replace(" ", "").isalpha())


def is_statement(text: str) -> bool:
    """Tests whether it is several words, with or without a value among them."""
    return "\\" not in text and len(re.findall(r"[a-z]{3,}", plain(text))) > 1


def is_verdict(text: str) -> bool:
    """Tests whether it is yes or no, true or false."""
    return _MEANING.get(plain(text)) in _VERDICTS


def choice_letter(text: str) -> str | None:
    """The letter of `C`, `(C)`, `C.` and `C. because ...`; None for other text."""
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(" *\"'")
    if match := _CHOICE.match(bare.rstrip(".:,")):
        return match[1]
    if match := _CHOICE_AND_TEXT.match(bare):
        return match[1] or match[2] or match[3]
    return None


def same_words(reference: str, answer: str) -> bool | None:
    """Tests whether two texts say the same; None where they differ and the reference is too long to be sure."""
    if (letter := choice_letter(reference)) is not None and len(letter) == 1:
        if choice_letter(answer) == letter:
            return True
        match = _CHOICE_AND_TEXT.match(reference)
        return bool(match and match[4] and plain(match[4]) == plain(answer))
    wanted, found = plain(reference), plain(answer)
    if wanted == found or _meaning(wanted) == _meaning(found):
        return True
    if _meaning(wanted) in _VERDICTS and (said := _VERDICT.match(found)):
        return _meaning(said[1]) == _meaning(wanted)
    if found.startswith(wanted + " ") and _AS_SUBJECT.match(found, len(wanted)) and not _NEGATIONS.search(found):
        return True
    if len(wanted) == 1:
        return False
    if bool(_NEGATIONS.search(wanted)) != bool(_NEGATIONS.search(found)):
        return False
    if "\\" in wanted or "\\" in found:
        return False
    left, right = _content(wanted), _content(found)
    in_any_order = _LISTED.search(wanted) and not re.search(r"\d", wanted)
    if left not in ([], ["no"], ["not"]) and (
        "".join(left) == "".join(right) or (in_any_order and sorted(left) == sorted(right))
    ):
        return True
    if len(left) > MAX_SURE_WORDS and set(left) & set(right):
        return None
    return False


def _meaning(text: str) -> str:
    """Returns what stands for all phrases of one meaning; the subject of a sentence is left away."""
    text = re.sub(r"\bno such \w+(?: exists?)?", "no such", text)
    for sentence in (
        text,
        _SUBJECT.sub("", text),
        _CHINESE_SUBJECT.sub("", text),
        re.sub(r"^the \w+ (?=does)|^there (?:is|are) ", "", text),
    ):
        phrase = re.sub(r"^(?:a|an|the)\s+", "", sentence)
        if phrase in _MEANING:
            return _MEANING[phrase]
    return text


def _content(text: str) -> list[str]:
    text = _CHINESE_SUBJECT.sub("", text) if not text.isascii() else _SUBJECT.sub("", text)
    text = re.sub(r"(?<=\w)-(?=\w)", "", re.sub(r"-angled| [nkm]$", "", text))
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text)
    return [_stem(word) for word in words if word not in _FILLERS]


def _stem(word: str) -> str:
    word = _SYNONYMS.get(word, word)
    return (
        re.sub(r"(?:ence|ent|ing|es|s|e)$", "", word)
        if len(word) > 5
        else word.removesuffix("s")
        if len(word) > 3
        else word
    )
