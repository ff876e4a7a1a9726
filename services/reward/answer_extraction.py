"""Says which part of a response is its answer. Only the last one that was committed to counts."""

from __future__ import annotations

import re

from services.reward.doubts import Outcome, is_doubted, outcome
from services.reward.equality.notation import repaired
from services.reward.equality.numerals import english_number
from services.reward.equality.structure import contradicts
from services.reward.equality.units import leading_unit

THINKING_TAG = re.compile(r"<(/?)(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_END_OF_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end)\|>|<｜end▁of▁sentence｜>|</s>")
_ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.IGNORECASE | re.DOTALL)
_BOX = re.compile(r"\\f?box(?:ed)?\s*(?:\{|([0-9a-zA-Z]+(?:\.\d+)?))")
_ANNOUNCEMENT = re.compile(
    r"(?:\banswers?\b\s*\**\s*(?:is|are|:|=)|答案\s*(?:应?[是为选]|:|：)|\bréponse\s*(?:est|:)|####|最终答案)"
    r"[ \t]*(?:definitely|for sure|therefore|thus|then|simply|just)?[ \t]*[:：]?[ \t]*",
    re.IGNORECASE,
)
# An announcement behind the last box is a new answer only if what it announces can be one.
_CAN_BE_ANSWER = re.compile(r"\s*\**(?:[-+$(\[\\]|\d|[a-zA-Z](?![a-zA-Z]))")
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.。!?？](?=\s|$|[^\x00-\x7f])|(?<=[^\x00-\x7f])[。！？]")
# What may stand between two boxes that together are one answer: `\boxed{2} apples and $y = \boxed{3}$`.
_BETWEEN_BOXES = re.compile(
    r"(?:[\s,;$}]|\\q?quad\b|\\[,;()]|\\text\{|\b(?:and|or)\b|\bfor part \([a-z]\)|(?<!\w)[a-z](?:_\{?\w+\}?)?\s*="
    r"|\b(?!(?:and|or|is|are|not|so|then|thus|hence|wrong|no)\b)[a-z]{2,12}\s(?=and\b))*",
    re.IGNORECASE,
)
MAX_BETWEEN_BOXES = 80  # characters

# Prose.
_SPAN = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$([^$]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*([^*]*\d[^*]*|[A-J])\*\*"
    r"|(-?\d*\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|-?\d*\\sqrt\{[^{}]*\})",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.\\/'])(\d{1,2}:\d\d(?:\s?[ap]\.?m\b\.?)?|[-+−]?\s?\\?[$€£¥₹]?\s?(?:\d+(?:,\d{3})*(?:[.,]\d+(?:\.{3}|…)?)?(?:\s\d+/\d+|/\d+)?|\.\d+)(?:[eE][-+]?\d+)?)"
    r"(?![A-Za-z_]*[\d'\"]|[xyznk](?![a-zA-Z]))(\s?(?:%|\^\\circ|°|€|£)|\s?[^\W\d_]+(?:/[a-z]+)?(?:\^?[23²³])?)?"
)
_WORD = re.compile(r"(?<![\\\w])[^\W\d_]{2,}")
_NO_PROSE = frozenset("and or sqrt pi sin cos tan log ln exp cm mm km kg ft in mi hr min mod gcd lcm percent".split())
_IDEOGRAPHS = re.compile(r"[\u4e00-\u9fff]")
_HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|possibly|probably|presumably|likely|might|could|not|isn't|aren't|never|wrong|incorrect|unsure|guess"
    r"|less than|more than|greater than|at most|at least|fewer than|cannot|can't|no)\b|\?"
    r"|或|不是|可能|也许|大概|估计|猜|大于|小于|至少|至多",
    re.IGNORECASE,
)
_DOUBTED = re.compile(r"^\W*(?:is|was|are)?\s*(?:wrong|incorrect|not\b|also possible|or\b|或)|\?$", re.IGNORECASE)
_BRACE = re.compile(r"[{}]")
_CODE = re.compile(r"\b(?!(?:sin|cos|tan|log|exp|ln|gcd|lcm|max|min)\b)[A-Za-z_]{2,}\(\S|\blambda\b|\breturn\b|__\w")
_CONTINUES = re.compile(
    r"\s*[-=+*/×÷:]|\s*[^\W\d_]+\s*(?:[=+*/×÷]|-\s*\d)|(?!.*\b(?:because|since|as|for)\b)[^,.;()=]{0,20}=\s"
)
_REMARK = re.compile(r",?\s*\b(?:for (?:all|every|any|each|some)\b|where\b)(?!.*\banswer\b).*$", re.DOTALL)
_JOINS = re.compile(r"\s*(?:,|,?\s*(?:and|or)\b|、|[和或])\s*")
_AND_MORE = re.compile(r"\s*[^\W\d_]+,?\s+and\s+")
_NO = re.compile(r"^\s*(?:no\b|不是?)\s*[,，:;-]\s*", re.IGNORECASE)
_CHAIN = re.compile(
    r"(?:(?<![a-zA-Z])[a-zA-Z]\s*=|^|\b(?:is|are|so|thus|hence|therefore|get|gives|have)\b:?|:|,\s)\s*"
    r"([-+]?[\d(][\d\s.+\-*/×÷·^()=]*=\s*)$",
    re.IGNORECASE,
)
_NOT_THAT = re.compile(r"[,;]?\s+(?:and\s+)?not\s+[^\s,]+\.?$")
MAX_RESPONSE = 200_000  # characters at the end that are looked at for an answer
MAX_PROSE = 4000  # characters at the end that are looked at for an answer in prose


def without_thinking(response: str) -> str:
    """The response without its thinking: blocks in tags, what precedes a lone closing tag (its opening one was part
    of the prompt), and what follows one that never closes."""
    kept: list[str] = []
    position, thinking = 0, False
    for tag in THINKING_TAG.finditer(response):
        closing = bool(tag[1])
        if not thinking and closing:
            kept.clear()
        elif not thinking:
            kept.append(response[position : tag.start()])
        thinking = not closing
        position = tag.end()
    if not thinking:
        kept.append(response[position:])
    return "".join(kept)


def after_marker(text: str, marker: str) -> str | None:
    """Returns what follows the last marker, to the end. None if the marker is missing."""
    _, found, answer = text.rpartition(marker)
    return answer.strip() if found else None


def boxed(text: str) -> str | None:
    r"""Returns what the last `\boxed{...}` holds; boxes joined by a comma, `and` or `or` are one answer of several
    parts."""
    boxes = _boxes(text)
    if not boxes:
        return None
    parts = [boxes[-1][1]]
    for earlier, later in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        if later[0] - earlier[2] > MAX_BETWEEN_BOXES or not _BETWEEN_BOXES.fullmatch(text, earlier[2], later[0]):
            break
        parts.insert(0, earlier[1])
    return ", ".join(dict.fromkeys(parts))


def _boxes(text: str) -> list[tuple[int, str, int]]:
    """(start, content, end) of each box that is in no other."""
    boxes: list[tuple[int, str, int]] = []
    closings = _closing_braces(text) if "\\" in text else {}
    for start in _BOX.finditer(text):
        if boxes and start.start() < boxes[-1][2]:
            continue  # inside the one before
        if start[1]:
            boxes.append((start.start(), start[1], start.end()))
        elif (end := closings.get(start.end() - 1)) is not None:
            content = text[start.end() : end].strip()
            if not content and boxes:
                continue  # an empty one takes nothing back
            if nested := _BOX.match(content):  # a box in a box, but not in a third
                content = content[nested.end() :].removesuffix("}").strip() if not nested[1] else nested[1]
            boxes.append((start.start(), content, end + 1))
    return boxes


def announced(text: str) -> str | None:
    """Returns what follows the last `answer is` or `answer:`, to the end of its sentence."""
    found = list(_ANNOUNCEMENT.finditer(text))
    return _sentence(text[found[-1].end() :]) if found else None


def _sentence(text: str) -> str:
    line = text.strip(" *\n\t:").partition("\n")[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0].strip(" *")


def committed(response: str, marker: str = "") -> str | None:
    """The answer of a response, wherever it stands: after the marker if one is asked for, else in the last box, in an
    <answer> tag, after `answer is` or `####`, or the last line. None if there is none."""
    text = _END_OF_TURN.split(without_thinking(response), maxsplit=1)[0][-MAX_RESPONSE:]
    text = repaired(text)
    if marker:
        after = after_marker(text, marker)
        return after and (boxed(after) or after)
    if tags := list(_ANSWER_TAG.finditer(text)):
        said = tags[-1][1].strip()
        return boxed(said) or said or None
    boxes = _boxes(text)
    announcements = list(_ANNOUNCEMENT.finditer(text))
    if boxes:
        last = announcements[-1] if announcements else None
        if last is None or last.start() < boxes[-1][0] or not _CAN_BE_ANSWER.match(text, last.end()):
            return _standing(boxed(text), outcome(text[: boxes[-1][0]], text[boxes[-1][2] :]))
    if announcements and (answer := announced(text)):
        start = text.index(answer, announcements[-1].end())
        before = text[: announcements[-1].start()]
        return _standing(answer, outcome(before, text[start + len(answer) :], answer))
    return _last_line(text)


def _standing(answer: str | None, found: Outcome) -> str | None:
    return answer if found.stands else found.instead


def _last_line(text: str) -> str | None:
    lines = [line.strip() for line in text[-MAX_PROSE:].split("\n") if line.strip()]
    if len(lines) > 1 and lines[-1] in (r"\]", "$$", r"\end{align*}"):
        return lines[-2]
    if not lines or is_doubted(lines[-1]):
        return None
    first = _SENTENCE_END.search(lines[-1])
    if first is None or first[0] in "?？" or not _NUMBER.search(lines[-1], 0, first.end()):
        return lines[-1]
    found = outcome("", lines[-1][first.start() :])
    return lines[-1] if found.stands else found.instead


def is_statement(reference: str) -> bool:
    """Tests whether a reference is words around a value, all of which matter: `a local minimum at x = 2`."""
    words = [word for word in _WORD.findall(reference) if word.lower() not in _NO_PROSE]
    return len(words) > 1 and "\\" not in reference and re.match(r"[^\W\d_]{2}|a ", reference) is not None


def is_prose(text: str) -> bool:
    """Tests whether there are sentences around the value."""
    bare = _SPAN.sub(" ", re.sub(r"\\(?:text|mathrm|mbox|textbf|begin|end)\s*\{[^{}]*\}", " ", text))
    if _CODE.search(bare):
        return False
    words = [word for word in _WORD.findall(bare) if word.lower() not in _NO_PROSE]
    if len(words) == 1:
        return _SPAN.search(text) is not None or bare.strip().startswith(words[0])
    return len(words) > 1 or len(_IDEOGRAPHS.findall(bare)) > 2


def value_in_prose(text: str, with_noun: bool) -> str:
    """The value that prose commits to: what it begins with, else the last formula or number of the last sentence that
    has one. The text as it is where it hedges, or has none.

    with_noun: keep the word behind the number, whatever it is; else only where it is a unit.
    """
    text = _NOT_THAT.sub("", text[-MAX_PROSE:])
    for statement in reversed(_statements(text)):
        sentence = _without_remark(statement)
        outside = _SPAN.sub(lambda match: " " * len(match[0]), sentence)
        found = sorted([*_SPAN.finditer(sentence), *_NUMBER.finditer(outside)], key=lambda match: match.start())
        if not found:
            number = english_number(sentence.split()[-1].strip(".,")) if sentence.strip() else None
            if number and not _HEDGE.search(sentence):
                return number
            continue
        leads = not outside[: found[0].end()].replace(found[0][0], "").strip() and not _CONTINUES.match(
            sentence, _end(found[0])
        )
        if leads and len(found) > 1 and _AND_MORE.fullmatch(sentence, _end(found[0]), found[1].start()):
            return text  # `2 boys and 3 girls`
        first = 0 if leads else len(found) - 1
        while not leads and first and _JOINS.fullmatch(sentence, _end(found[first - 1]), found[first].start()):
            first -= 1
        if len(found) - first > 1 and not leads:
            return ", ".join(_value_of(match, with_noun) for match in found[first:])  # all that were given
        chosen = found[first]
        before = 0 if chosen is found[0] else _end(found[-2])
        if (
            "between" in outside
            or _HEDGE.search(outside, before, chosen.start())
            or _DOUBTED.search(outside[_end(chosen) :])
        ):
            return text
        if (chain := _CHAIN.search(sentence, 0, chosen.start())) and contradicts(chain[1] + _value_of(chosen, False)):
            return text
        return _value_of(chosen, with_noun)
    return text


def _without_remark(sentence: str) -> str:
    """`It is $2x$ for all $x$` without what is said of x."""
    remark = _REMARK.search(sentence)
    return sentence[: remark.start()] if remark and _SPAN.search(sentence, 0, remark.start()) else sentence


def _statements(text: str) -> list[str]:
    """The sentences that are no questions; `No,` as the answer to one is left away."""
    statements, start, asked = [], 0, False
    for end in [*_SENTENCE_END.finditer(text), None]:
        sentence = text[start : end.start() if end else len(text)]
        if end and end[0] in "?？":
            asked = True
        else:
            statements.append(_NO.sub("", sentence) if asked else sentence)
        start = end.end() if end else start
    return statements


def _end(match: re.Match[str]) -> int:
    return match.end() if match.re is _SPAN else match.end(1)


def _value_of(match: re.Match[str], with_noun: bool) -> str:
    if match.re is _SPAN:
        return next(group for group in match.groups() if group).strip()
    noun = match[2] or ""
    return (match[1] + (noun if with_noun and noun.isascii() else leading_unit(noun))).strip()


def is_solution(reference: str) -> bool:
    """Tests whether a reference is a worked solution that has its answer in a box or announces it."""
    return "\\box" in reference or _ANNOUNCEMENT.search(reference) is not None


def _closing_braces(text: str) -> dict[int, int]:
    """Returns where each opening brace closes; nothing for those that never do."""
    closings: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closings[opened.pop()] = brace.start()
    return closings
