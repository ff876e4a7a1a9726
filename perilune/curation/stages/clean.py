"""Texts in one form, and rows that say nothing out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from perilune.curation.arithmetic import contradicted
from perilune.curation.processes import in_chunks
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.text import cleaned, same_text_key
from perilune.curation.workspace import Decision, Survivors
from perilune.recipe import PositiveInt

# What stands where an answer should, in sets that were taken from books and pages.
_SOURCE = (
    r"(?:the )?(?:text|solutions?|proof|figure|above|below|explanation|attached|book|notes|answer|key|manual|appendix|image|"
    r"diagram|page|chapter|section|table|video|link|file|lecture|article|textbook|reference|worked|detailed|full|official)"
)
_PLACEHOLDER = re.compile(
    rf"(?:please )?(?:see|refer(?: to)?|check|consult|cf\.?|look at|given in|found in|in|as (?:given |shown |explained )?in) "
    rf"(?:the |our )?(?:\w+ )?{_SOURCE}s?\b.{{0,40}}"
    rf"|(?:solution|answer|explanation|proof)s?\s*(?:is |are |was |were )?(?::|-|not|to be|will be|can be|see|omitted|missing|"
    r"pending|unavailable|unknown|available|provided|given|follows?|below|above|redacted|removed|hidden|missing|needed|tbd|left)\b.{0,40}"
    r"|n\s*[/.]?\s*a\.?|none(?: given)?|nil|no (?:answers?|solutions?|references?|key)(?: (?:given|available|provided|yet|found|known))?"
    r"|(?:answers?|solutions?|explanations?|proofs?) (?:is |are )?(?:in|at|on|under|behind) .{0,40}"
    rf"|{_SOURCE}s? (?:shows?|says?|has|gives?|tells?|explains?|contains?)\b\D{{0,40}}"
    r"|not (?:given|available|applicable|provided|known|found|answered|sure|yet.*|specified|determined|stated)"
    r"|unknown|unavailable|unanswered|missing|pending|empty|blank|redacted|deleted|removed|omitted|hidden|tb[adc]|to ?do|to be (?:\w+ ?)+"
    r"|(?:the )?(?:answers?|results?|responses?|solutions?) (?:may |will |might |can )?(?:vary|varies|differ)s?.{0,40}"
    r"|.{0,20}\bleft (?:to|as|for) (?:the |an? )?(?:readers?|exercise|students?).{0,30}|exercise(?: for the reader)?"
    r"|(?:as |shown |given )(?:above|below|shown)|(?:the )?(?:figure|proof|diagram|graph|image|picture)(?: \w+)?|proof omitted|trivial|obvious"
    r"|(?:i )?(?:don'?t|do not) know|idk|no idea|can ?not say|you tell me|lorem ipsum.*|placeholder|sample (?:answer|text)|answer(?: here)?"
    r"|(?:nan|null|nil|undefined|xxx+|error|#n/a|#ref!?|#value!?)|https?://\S+|www\.\S+|[\[<({](?:\w+ ?){1,3}[\]>)}]|page \d+|p\.? ?\d+|ans(?:wer)?:?"
    rf"|\D{{0,80}}[,:;(]\s*(?:see|refer to|check|consult|cf\.?) (?:the |our |my )?{_SOURCE}s?\b\D{{0,40}}"
    r"|[?.\-–—_*…\s#/\\~]+",
    re.IGNORECASE,
)
_ANSWER_LABEL = re.compile(r"^\W*(?:answer|solution|ans|key)\s*:\s*(?=\S)", re.IGNORECASE)
_ASKS_NUMBER = re.compile(r"\bhow (?:many|much)\b", re.IGNORECASE)
# What answers "how many" beside digits: a number in words, a formula of variables, a quantity without a number.
_NUMBER = re.compile(
    r"[\d\\=^+*/∞]|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|"
    r"sixty|seventy|eighty|ninety|hundred|thousand|million|dozen|half|third|quarter|twice|double|none|no|all|both|infinite|"
    r"infinitely|many|few|once|an?|single|pair|couple|nothing|never|every|equal|same|[b-hj-z])\b|[^\x00-\x7f]",
    re.IGNORECASE,
)


class Clean(Stage):
    """`[clean]`: normalises questions and answers (`text.cleaned`), and bounds their lengths."""

    title: ClassVar[str] = "Cleaning"
    min_words: PositiveInt = 2  # of a question, in languages that have blanks between them
    max_chars: PositiveInt = 20_000
    max_answer_chars: PositiveInt = 2_000

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes rows that say too little or too much."""
        texts = ((row.id, row.question, row.answer) for row in rows)
        for part in in_chunks(_decisions, self, texts, len(rows)):
            yield from part

    def broken(self, question: str, answer: str) -> str:
        """Why a row says nothing, or too much; empty if it does not."""
        bare = _ANSWER_LABEL.sub("", answer).strip(" .!*\"'()")
        if not answer or _PLACEHOLDER.fullmatch(bare) or _PLACEHOLDER.fullmatch(answer):
            return "no answer"
        if len(question.split()) < self.min_words and question.isascii():
            return "too short"
        if len(question) > self.max_chars or len(answer) > self.max_answer_chars:
            return "too long"
        if same_text_key(question) == same_text_key(answer):
            return "the answer is the question"
        if contradicted(question, answer):
            return "not the value of its own expression"
        asks_number = _ASKS_NUMBER.search(question) and question.count("?") < 2
        return "no number where one is asked for" if asks_number and not _NUMBER.search(answer) else ""


def _decisions(stage: Clean, rows: Sequence[tuple[int, str, str]]) -> list[Decision]:
    found = []
    for number, question, answer in rows:
        said, known = cleaned(question), cleaned(answer)
        if reason := stage.broken(said, known):
            found.append(Decision(number, reason, f"{said[:200]} … answer {known!r:.100}"))
        elif (said, known) != (question, answer):
            found.append(Decision(number, question=said, answer=known))
    return found
