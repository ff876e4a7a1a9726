"""The discipline of a question by its words: the one that has most of them, weighed; `other` without any."""

from __future__ import annotations

import re
from collections.abc import Mapping

from perilune.curation.text import plain

OTHER = "other"
DISCIPLINES: Mapping[str, list[str]] = {
    "mathematics": [
        "arithmetic", "algebra", "geometry", "number theory", "combinatorics", "probability", "calculus", "logic"
    ],
    "science": ["physics", "chemistry", "biology", "earth and space"],
    "computing": ["programming", "algorithms"],
    "humanities": ["history", "geography", "language", "economics"],
}  # fmt: skip

# Words of each discipline; those before the bar decide more than those behind it.
_WORDS: Mapping[str, tuple[str, str]] = {
    "algebra": (
        "equation polynomial quadratic linear factor(?:ise|ize) simplify inequality roots? matrix determinant eigenvalue "
        "logarithm exponent(?:ial)? function solve coefficient variable", "solution x y expression system sqrt"),
    "geometry": (
        "triangle circle square rectangle polygon angle radius diameter perimeter circumference hypotenuse parallel "
        "perpendicular pyramid sphere cylinder cone cube tangent trapezoid rhombus pentagon hexagon octagon "
        "quadrilateral coordinates? degrees", "area volume side length line point plane diagonal"),
    "number theory": (
        "prime divisible divisor gcd lcm modulo congruent coprime factorial remainder digits? multiple integers? "
        "greatest common least common factoriz?s?ation divides", "even odd number"),
    "combinatorics": (
        "permutations? combinations? arrangements? arrange ways subsets? binomial pigeonhole committee", "choose distinct order seated"),
    "probability": (
        "probability expected dice die coin random likely chance variance mean median mode standard deviation "
        "distribution sample average odds", "drawn marbles cards replacement fair"),
    "calculus": (
        "derivative integral integrate differentiate limit converges? series gradient tangent line differential maximum "
        "minimum slope int", "rate function continuous area under"),
    "logic": (
        "knights? knaves? liar truth-teller puzzle implies proposition boolean syllogism riddle statements? true false", "if then"),
    "physics": (
        "velocity acceleration force energy momentum mass gravity newton joule watt volt ampere resistance current "
        "wavelength frequency friction pendulum kinetic lens refract(?:ion)? pressure", "speed light heat temperature"),
    "chemistry": (
        "molecule atoms? reaction acid base mole molar compound element periodic chemical ph oxidation isotope ion "
        "solution electron bond", "gas metal liquid"),
    "biology": (
        "cell dna rna protein gene species organism enzyme photosynthesis evolution organ tissue bacteria virus "
        "blood heart brain", "plant animal body"),
    "earth and space": (
        "planet star orbit galaxy moon earthquake volcano climate atmosphere ocean rocks? solar telescope", "sun earth weather"),
    "programming": (
        "python java program code compile variable loop string array list print output returns? def class recursion "
        "pseudocode", "function input sequence"),
    "algorithms": (
        "sort(?:ed|ing)? graph tree node edge shortest path complexity binary search hash queue stack dynamic "
        "programming algorithm maze grid", "cost step"),
    "history": (
        "war king queen emperor century treaty revolution president dynasty empire battle ancient medieval born died "
        "invented discovered", "year first"),
    "geography": ("capital country river mountain continent city island border population ocean lake", "north south largest"),
    "language": (
        "word sentence letters? synonym antonym grammar translate author novel poem spell noun verb adjective vowels? "
        "anagram rhyme wrote", "english french german story"),
    "economics": ("interest profit loss inflation gdp demand supply market tax loan investment revenue bank budget", "price cost"),
    "arithmetic": (
        r"sum product difference quotient percent fraction decimal add subtract multiply divide [+*/] total", 
        r"how many much cost price each buys? sells? has have left more \d+ % -"),
}  # fmt: skip
STRONG = 3


def _pattern(listed: str) -> re.Pattern[str]:
    words = [each if not each[0].isalpha() else rf"\b{each}s?\b" for each in listed.split()]
    return re.compile("|".join(words))


_PATTERNS = {name: (_pattern(strong), _pattern(weak)) for name, (strong, weak) in _WORDS.items()}


def discipline_of(question: str) -> str:
    """The discipline whose words a question says most.

    >>> discipline_of("What is the area of a triangle of base 3 and height 4?"), discipline_of("What is 3 + 4?")
    ('geometry', 'arithmetic')
    """
    text = plain(question)
    scores = {
        name: STRONG * len(set(strong.findall(text))) + len(set(weak.findall(text)))
        for name, (strong, weak) in _PATTERNS.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else OTHER
