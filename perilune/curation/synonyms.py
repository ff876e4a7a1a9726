"""The words of questions, for comparing them: which only ask, which mean the same, which make another question."""

from __future__ import annotations

# Words that say "answer this" and nothing of what is asked.
ASKING = frozenset(
    """a an the of is are was were be been being am to for in on at that this these those it its and please kindly find
    determine compute calculate evaluate work out what which whats give state tell me us figure solve obtain get value
    result answer how much many does do did done if suppose assume assuming given let you your can could would will
    shall there has have had having show with then following express simplify write as we our need know exactly number
    amount quantity count my provide supply report name identify specify work out determine deduce establish
    ascertain discover derive arrive so thus hence therefore thereby also too just now currently simply carefully
    quickly correct correctly he she him her his hers they them their theirs himself herself themselves when while
    whether consider imagine say want wants wish like next question problem task here below by from
    about into onto thanks thank help exact final numerical numeric using use each every any apiece
    per one some asked asks ask required require wanted looking seek sought got gets getting
    dollar dollars usd own owns owned possess possesses hold holds held contain contains contained whattime""".split()
)
SYNONYMS = {
    word: meaning
    for meaning, synonyms in {
        "min": "least smallest minimum lowest minimal fewest tiniest",
        "max": "greatest largest biggest maximum highest maximal most",
        "+": "plus added",
        "-": "minus",
        "*": "times multiplied",
        "/": "divided",
        "=": "equals equal",
        "mean": "average averages",
        "remainder": "rest left remaining remain remains leftover",
        "sum": "total",
        "%": "percent percentage",
        "start": "begin begins beginning begun commence commences starting starts initial initially original",
        "end": "finish finishes finished finishing conclude concludes ending",
        "buy": "buys bought purchase purchases purchased purchasing buying acquire acquires acquired",
        "sell": "sells sold selling",
        "give": "gives gave giving hands handed donates donated gifts gifted",
        "find": "finds found finding discovers discovered",
        "make": "makes made making produce produces produced create creates created manufactures",
        "eat": "eats ate eaten eating consumes consumed",
        "run": "runs ran running",
        "drive": "drives drove driven driving travels travel traveled travelled traveling travelling journeys",
        "receive": "receives received obtains obtained collects collected gains gained",
        "spend": "spends spent spending pays paid pay",
        "earn": "earns earned earning",
        "lose": "loses lost losing",
        "take": "takes took taken taking needs needed requires",
        "walk": "walks walked walking strolls strolled hikes hiked",
        "read": "reads reading",
        "arrive": "arrives arrived arrival reaches reached reach",
        "leave": "leaves leaving departs depart departed departure",
        "save": "saves saved saving",
        "grow": "grows grew growing",
        "child": "children kid kids pupils pupil students student",
        "person": "people persons",
        "man": "men",
        "woman": "women",
        "shop": "store stores shops market",
        "car": "cars automobile automobiles",
        "bike": "bikes bicycle bicycles",
        "house": "houses home homes",
        "cost": "costs price prices priced charge charges",
        "long": "length lengths longer distance far distances",
        "tall": "height heights high taller",
        "wide": "width widths breadth wider",
        "deep": "depth depths",
        "heavy": "weight weights weigh weighs mass",
        "old": "age ages aged older",
        "fast": "speed speeds quick rate velocity",
        "big": "large huge great",
        "small": "little tiny",
        "whole": "entire complete full",
        "friend": "friends buddy buddies pal pals",
        "road": "street roads streets way path",
        "trip": "trips journey",
        "each other": "mutually",
        "meter": "metre metres meters",
        "centimeter": "centimetre centimetres centimeters cm",
        "kilometer": "kilometre kilometres kilometers km",
        "millimeter": "millimetre millimetres millimeters mm",
        "liter": "litre litres liters",
        "kilogram": "kilograms kilogramme kilogrammes kg kilo kilos",
        "gram": "grams gramme grammes",
        "hour": "hours hr hrs",
        "minute": "minutes mins",
        "second": "seconds secs sec",
        "day": "days",
        "week": "weeks",
        "month": "months",
        "year": "years yr yrs",
        "euro": "euros eur",
        "pound": "pounds",
        "cent": "cents",
        "color": "colour colours colors",
        "center": "centre centres centers",
        "integer": "integers",
        "natural": "naturals",
        "real": "reals",
        "factor": "factors divisor divisors",
        "triangle": "triangles",
        "root": "roots solution solutions zeros zeroes",
        "gcd": "gcf hcf",
        "lcm": "lcd",
        "rectangle": "rectangles rectangular",
        "likely": "probability chance chances likelihood odds probable",
        "choose": "chooses chose chosen select selects selected pick picks picked",
        "identical": "same alike",
        "different": "distinct differing",
        "book": "books",
        "box": "boxes crate crates carton cartons",
        "bag": "bags sack sacks",
        "job": "jobs",
        "yesterday": "yesterdays",
        "capital": "capitals",
        "country": "countries nation nations",
        "city": "cities town towns",
        "author": "authored wrote writer written",
        "word": "words",
        "letter": "letters character characters",
        "list": "lists sequence",
        "string": "strings",
        "backward": "backwards",
    }.items()
    for word in (*synonyms.split(), meaning)
}
STEMS = (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("ss", "ss"), ("us", "us"),
         ("is", "is"), ("s", ""), ("ing", ""), ("ed", ""))  # fmt: skip

_DECISIVE = frozenset(
    """min max + - * / ^ = < > % ! who where why product difference quotient even odd prime composite positive negative
    not no never without except last before after area perimeter volume surface circumference radius diameter mean
    median mode range variance sin cos tan sine cosine tangent log ln more less fewer increase decrease squared
    cubed square cube root double triple half third quarter north south east west right up down above below under
    true false all none only inclusive exclusive integer real rational remainder hour minute second day week month
    year ascending descending row column numerator denominator monday tuesday wednesday thursday friday saturday
    sunday january february march april june july august september october november december first fourth fifth
    sixth seventh eighth ninth tenth gcd lcm factor multiple digit tens units ones hundreds tall wide deep old heavy
    fast long likely cost start end smaller bigger larger greater shorter longer younger elder slower faster buy
    sell give receive earn spend lose identical different least most inner outer internal external interior exterior
    clockwise counterclockwise vowel consonant uppercase lowercase union intersection hypotenuse leg maximum minimum
    permutation combination with-replacement replacement binary decimal octal hexadecimal celsius fahrenheit kelvin
    meter centimeter kilometer millimeter liter gram kilogram mile inch foot yard x-coordinate y-coordinate slope
    intercept simplest loss profit arrive leave man woman boy girl husband wife mother father brother sister son
    daughter""".split()
)
# A difference in one of these is another question, also in the form in which words are compared.
DECISIVE = _DECISIVE | {SYNONYMS.get(word, word) for word in _DECISIVE}
