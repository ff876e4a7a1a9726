"""Answers that are taken back, doubted, or only asked about, by what is said behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# The end of a sentence, and not the point of a decimal.
_SENTENCE = re.compile(r"(?:[^.!?。！？\n]|(?<=\d)\.(?=\d)|(?<=\.)\.|\.(?=\.))+([.!?。！？]+|\n|$)")
_QUESTION = re.compile(r"[?？]")
_LEFTOVERS = re.compile(r"^[\s$}\])*.,;:。，\\|]+(?:end\{[a-z*]+\})?[\s$*]*")

# In the tables below a row is one way of saying it, a regular expression in which a name stands for a row here.
_NAMES = {
    "NOT": r"(?:n['’]t| not)",
    "VERY": r"(?:(?:really|entirely|quite|completely|fully|totally|absolutely|at all|100%|so|too|very|that) )*",
    "SURE": r"VERY(?:sure|certain|confident|positive)",
    "STILL": r"(?:(?:really|still|honestly|just|simply|actually) )*",
    "BUT": r"(?:(?:but|though|although|well|honestly),? |但是?|不过)*",
    "GUESS": r"(?:(?:only|just|purely|a|my|wild|random|best) )*guess(?:ing)?\b(?! that)",
    "FIRST": r"(?:(?:above|previous|last|final|boxed|earlier|first) )*",
    "RESULT": r"(?:answer|result|value|box|solution|calculation|conclusion|number|one)",
    "IT": r"(?:that|this|it|which|the above|(?:the|my|this|that) FIRST(?:RESULT)(?: above| I gave| in the box)?"
    r"|what I (?:wrote|said))",
    "RIGHT": r"(?:(?:quite )?right|correct|the (?:right |correct |final )?answer|true|accurate|valid|it\b)",
    "SURELY": r"(?:(?:actually|clearly|definitely|probably|surely|simply|obviously|still|just|of course|in fact) )*",
    "WRONG": r"SURELY(?:wrong|incorrect|false|mistaken|erroneous|an? (?:mistake|error|typo)|not RIGHT|off by"
    r"|too (?:large|small|big|low|high)\b)",
    "WELL": r"(?:no|nope|wait|hmm*|oh|ah|oops|sorry|apologies|actually|but|however|hold on|hang on|well|unfortunately"
    r"|then|yet|correction|on reflection|on second thoughts?)[\s,.!:;…—–-]+",
    "IS": r"(?:is|['’]s|was|should be|must be|equals|=|to be)",
    "ERROR": r"(?:\w+ )?(?:mistake|error|slip|typo)\b",
    "THAT": r"(?:that|this|it|the above|the previous|the last|my|what)\b",
    "VALUE": r"(\$[^$]+\$|\\boxed\{[^{}]*\}|\\\(.+?\\\)|[-+−]?(?:\\[a-z]+(?:\{[^{}]*\})+|[$€£]?\d[\d,.]*(?:/\d+)?%?"
    r"|[a-zA-Z](?![a-zA-Z])))(?=\s*(?:[.,;!。，]|\Z|\n|\b[a-z]+\b\s*[.,!]))",
}
_DOUBT = r"""
\bI STILL(?:doNOT|canNOT|cannot|couldNOT) STILL(?:know|tell|say\b|be SURE|determine|decide|remember)
\bI(?:['’]m| am) STILL(?:not SURE|unsure|uncertain|guessing|doubtful)
\bdunno\b|\bbeats me\b
\bI (?:have|had) (?:no idea|no clue|(?:my |some |serious )?doubts)
\b(?:it is|it's|it remains) (?:unclear|uncertain|unknown) (?:if|whether)
(?:也许|或许|大概|可能)是?\s*\$?\d
我(?:真的?|还|也|实在)?(?:不|没)(?:太|是很|大|能|敢)?(?:确定|知道|清楚|肯定|把握)
"""
# Behind a comma or a full stop.
_THEN_DOUBT = r"""
(?:(?:I am|I'm|am) )?not SURE
(?:(?:I am|I'm|am) )?(?:unsure|uncertain|no idea|no clue|GUESS)\b
who knows|maybe not|or maybe|maybe\)
不(?:太|是很|能|敢)?(?:确定|知道|清楚|肯定)|没把握|猜的|瞎猜
"""
_TAKES_BACK = r"""
IT(?: (?:is|was|seems|looks|appears|must be)(?: to be)?|['’]s) WRONG
IT (?:is|was|does|did|could|would|can)NOT (?:quite )?(?:be |seem |look )?RIGHT
IT can(?:not| not|['’]t) (?:possibly )?be RIGHT
IT (?:does|did)NOT (?:\w+ )?(?:check out|check|work out|work|fit|hold|satisfy|make sense|add up|match)
IT (?:contradicts|fails)\b
(?:wrong|incorrect|false|not correct|not right)\W*$
no$|(?:my|a) mistake\b|my bad\b
(?:.*(?:,|\bso|\bthat) )?I(?: was| am|['’]m) (?:wrong|mistaken|incorrect)\b(?! at first| initially| before)
I(?:['’]ve| have| had)? (?:made|make|see|found|notice) (?:an?|some|my|the) ERROR
I (?:forgot|misread|misunderstood|miscounted|miscalculated|mixed up|confused|overlooked|retract|withdraw)
I (?:take|took) (?:that|it|this|my answer|my words) back
I should have\b
(?:I need to|I should|I have to|I must|let me) (?:redo|correct THAT|fix|start over|try again|rethink|reconsider)
(?:please )?(?:scratch|strike|ignore|disregard|forget|discard|delete) THAT
never ?mind|correction\b
there (?:is|was) an? ERROR
(?:等等|等一下|抱歉|对不起|哦|噢|但是?|不过|其实|[，,。 ])*(?:不对|(?<!没)(?<!没有)错了|我?算错|更正|我错)
(?:但是?|不过|其实|[，,])*(?:这个?|上面的?|前面的?)(?:答案|结果)?(?:是|算)?(?:错误?的?|不对|不正确)
"""
_CONFIRMS = r"""
^(?:yes|yep|ok|okay|correct$|right$)\b|^是的
^(?:so|no,) (?:it|that|this) is (?:right|correct|indeed|fine)\b
\b(?:is|was|seems|looks) (?:(?:indeed|in fact|actually|still) )?(?:right|correct|confirmed|fine|ok)\b
\b(?:it|this|that) (?:checks out|holds|matches|works)\b
\bno (?:mistake|error)|没有?错|正确|是对的
"""
# Another value in place of the one before: it begins the sentence, or is said to be the right one.
_SAYS_ANOTHER = r"""
(?:WELL)+(?:(?:no|it|that|this|the (?:\w+ )?RESULT|x|I (?:meant|mean|get)|make (?:that|it)) ?)?(?:IS)?:?\s*VALUE
"""
_CALLS_ANOTHER_RIGHT = r"""
\b(?:should|must) (?:have been|be|actually be|really be)\s*VALUE
\b(?:I meant|I mean|make (?:that|it)|instead:?)\s*VALUE
\b(?:(?:it|RESULT) (?:is|was)|it['’]s)(?: actually| really| in fact)?\s*VALUE
(?:应该?[是为]|其实是|答案是|而是|改为)\s*VALUE
"""


def _compiled(table: str, before: str = "") -> re.Pattern[str]:
    pattern = before + "(?:" + "|".join(table.strip().splitlines()) + ")"
    while (filled := re.sub(r"[A-Z]{2,}", lambda match: _NAMES.get(match[0], match[0]), pattern)) != pattern:
        pattern = filled
    return re.compile(pattern, re.IGNORECASE)


_IS_DOUBT = _compiled(_DOUBT)
_IS_LATER_DOUBT = _compiled(_THEN_DOUBT, r"(?:[-,;(—–.!?。！？，；（]|\bbut|\bthough|\balthough|但是?|不过)\s*BUT")
_IS_TAKEN_BACK = _compiled(
    _TAKES_BACK, r"^[(\[]?(?:WELL)*(?:I (?:think|believe|fear|guess|suspect|see|realize|realise)(?: that)? )?"
)
_IS_CONFIRMED = _compiled(_CONFIRMS)
_BEGINS_WITH_ANOTHER = _compiled(_SAYS_ANOTHER, "^")
_ANOTHER = _compiled(_CALLS_ANOTHER_RIGHT)
_WHETHER = re.compile(r"\b(?:if|whether)\b[^.,;:\n]*$", re.IGNORECASE)
_GOES_ON = re.compile(r"(?:is|was|can|does|seems|looks|['’]s)\b")
MAX_BEFORE, MAX_BEHIND = 60, 600  # characters around an answer that are looked at


@dataclass(frozen=True)
class Outcome:
    """Describes what became of an answer: it stands, or is taken back, perhaps for another."""

    stands: bool
    instead: str | None = None


STANDS, TAKEN_BACK = Outcome(True), Outcome(False)


def outcome(before: str, behind: str, answer: str = "") -> Outcome:
    """Returns what becomes of an answer by the text before and behind it.

    answer: the answer itself, where it may be more than a value.
    """
    rest = behind[:MAX_BEHIND]
    if _is_asked(rest) or is_doubted(answer, rest) or _WHETHER.search(before[-MAX_BEFORE:]):
        return TAKEN_BACK
    rest = _LEFTOVERS.sub("", rest)
    found = STANDS
    for said in _statements(f"it {rest}" if _GOES_ON.match(rest) else rest):
        instead = _instead(said)
        if _IS_TAKEN_BACK.search(said) or _BEGINS_WITH_ANOTHER.match(said) or (instead and not found.stands):
            found = Outcome(False, instead)
        elif _IS_CONFIRMED.search(said):
            found = STANDS
    return found


def is_doubted(answer: str, behind: str = "") -> bool:
    """Tests whether it is said that the answer is not known, or a guess."""
    return _IS_DOUBT.search(f"{answer} {behind}") is not None or _IS_LATER_DOUBT.search(answer + behind) is not None


def _is_asked(behind: str) -> bool:
    """Tests whether the sentence that the answer stands in is a question that no yes follows."""
    end = re.search(r"[.!?。！？\n]", behind[:MAX_BEFORE])
    if end is None or not _QUESTION.match(end[0]):
        return False
    return not _IS_CONFIRMED.search(_LEFTOVERS.sub("", behind[end.end() :]))


def _instead(said: str) -> str | None:
    found = _BEGINS_WITH_ANOTHER.match(said) or next(reversed(list(_ANOTHER.finditer(said))), None)
    return next((group for group in found.groups() if group), None) if found else None


def _statements(text: str) -> Iterator[str]:
    """The sentences that are no questions."""
    for match in _SENTENCE.finditer(text):
        said = match[0][: len(match[0]) - len(match[1])].strip()
        if said and not _QUESTION.search(match[1]):
            yield said
