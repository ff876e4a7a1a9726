r"""Reads a formula, as LaTeX or plain text, into a tree: a recursive-descent parser of what answers are made of.

A node is a tuple of its kind and its parts: ("number", Fraction), ("symbol", "x_1"), ("add", a, b), ("multiply", a, b),
("divide", a, b), ("power", a, b), ("call", "sin", a, ...). Time and depth are bounded by the limits below, whatever the
text. Sums over a range are read; integrals, limits and matrices are not: those are for sympy (`symbolic`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Node = tuple[Any, ...]

MAX_TOKENS = 400
MAX_DEPTH = 60
MAX_NUMBER_DIGITS = 500

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|\\[a-zA-Z]+|\\[{}|]|[a-zA-Z]'*|[-+*/^_(){}\[\]|!,:=])")
_GREEK = (
    r"\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi \rho"
    r" \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Phi \Psi \Omega"
    r" \ell \hbar"
)
SYMBOLS = frozenset(_GREEK.split())
FUNCTIONS = {
    f"\\{name}": name
    for name in (
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh arsinh arcosh artanh"
        " ln log exp lg cis max min gcd lcm arg Re Im"
    ).split()
}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh"}
_OPAQUE = frozenset("fgh")  # letters that before a bracket are the name of a function, not a factor
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\langle": ""}
_ROUNDING = {r"\lfloor": "floor", r"\lceil": "ceil"}
_STOPS = frozenset(
    ["+", "-", "*", "/", ")", "]", "}", ",", ":", "=", "|", r"\cdot", r"\times", r"\div", r"\}", "!", r"\mod", r"\bmod"]
)
_STOPS |= {r"\rfloor", r"\rceil", r"\rangle"}


class UnreadableError(Exception):
    """The text is no formula that this parser knows."""


class TooLargeError(Exception):
    """The formula is longer or deeper, or its numbers are larger, than is worth the cost."""


def parse(text: str) -> Node:
    """The tree of a formula in normal form (`notation.normalise`). UnreadableError, TooLargeError."""
    parser = _Parser(_tokens(text))
    node = parser.sum()
    if parser.peek() is not None:
        raise UnreadableError(parser.peek())
    return node


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(text[position : position + 20])
        tokens.append(match[1])
        position = match.end()
        if len(tokens) > MAX_TOKENS:
            raise TooLargeError("too many symbols")
    return tokens


def _has_symbol(node: Node) -> bool:
    return node[0] == "symbol" or any(_has_symbol(part) for part in node[1:] if isinstance(part, tuple))


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._bars = 0  # open absolute values: a bar then closes one

    def peek(self, ahead: int = 0) -> str | None:
        position = self._position + ahead
        return self._tokens[position] if position < len(self._tokens) else None

    def next(self) -> str:
        token = self.peek()
        if token is None:
            raise UnreadableError("it ends too early")
        self._position += 1
        return token

    def accept(self, *tokens: str) -> str | None:
        token = self.peek()
        return self.next() if token in tokens else None

    def expect(self, token: str) -> None:
        if self.accept(token) is None:
            raise UnreadableError(f"no {token}")

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        node = self.product()
        while operator := self.accept("+", "-"):
            right = self.product()
            node = ("add", node, right if operator == "+" else ("negative", right))
        self._depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            if self.accept("*", r"\cdot", r"\times"):
                node = ("multiply", node, self.signed())
            elif self.accept("/", r"\div"):
                node = ("divide", node, self.signed())
            elif self.accept(r"\mod", r"\bmod"):
                node = ("call", "mod", node, self.signed())
            elif self._starts_factor():
                node = ("multiply", node, self.power())
            else:
                return node

    def signed(self) -> Node:
        negative = False
        while sign := self.accept("-", "+"):
            negative ^= sign == "-"
        node = self.power()
        return ("negative", node) if negative else node

    def power(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        node = self.postfix(self.atom())
        if self.accept("^"):
            node = self.postfix(("power", node, self.exponent()))
        self._depth -= 1
        return node

    def postfix(self, node: Node) -> Node:
        while self.accept("!"):
            node = ("call", "factorial", node)
        return node

    def exponent(self) -> Node:
        """A group, or what stands behind the caret up to the next operator: `x^-2` too, and `2^3^4` from the right."""
        if self.peek() == "{":
            return self.postfix_power(self.group())
        if self.accept("-"):
            return ("negative", self.exponent())
        if self.peek() == r"\circ":
            raise UnreadableError("degrees")
        return self.postfix_power(self.atom())

    def postfix_power(self, node: Node) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        if self.accept("^"):
            node = ("power", node, self.exponent())
        self._depth -= 1
        return node

    def group(self) -> Node:
        """Between braces; a single token where they are left out, as in `\\frac12`."""
        if self.accept("{"):
            node = self.sum()
            self.expect("}")
            return node
        token = self.peek()
        if token is not None and token.isdigit() and len(token) > 1:
            self._tokens[self._position : self._position + 1] = [token[0], token[1:]]
        return self.atom()

    def atom(self) -> Node:
        token = self.next()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token in _CLOSING:
            return self.bracketed(token)
        if token in ("|", r"\lvert", r"\rvert", r"\|"):
            return self.absolute(token)
        if token in FUNCTIONS:
            return self.function(FUNCTIONS[token])
        if token in SYMBOLS or token[0].isalpha():
            return self.symbol(token)
        reader = _COMMANDS.get(token)
        if reader is None:
            raise UnreadableError(token)
        return reader(self)

    def number(self, token: str) -> Node:
        if len(token) > MAX_NUMBER_DIGITS:
            raise TooLargeError("too many digits")
        node: Node = ("number", Fraction(token if token[0] != "." else "0" + token))
        if token.isdigit() and self.peek() == r"\frac" and self._is_plain_fraction():
            return ("add", node, self.atom())  # a mixed number
        return node

    def _is_plain_fraction(self) -> bool:
        rest = "".join(self._tokens[self._position : self._position + 7])
        return re.match(r"\\frac(?:\{\d+\}|\d)(?:\{\d+\}|\d)", rest) is not None

    def bracketed(self, opening: str) -> Node:
        node = self.sum()
        self.expect(_CLOSING[opening])
        return ("call", _ROUNDING[opening], node) if opening in _ROUNDING else node

    def absolute(self, opening: str) -> Node:
        self._bars += 1
        node = self.sum()
        self._bars -= 1
        self.expect({r"\lvert": r"\rvert"}.get(opening, opening))
        return ("call", "abs", node)

    def symbol(self, token: str) -> Node:
        if token in (r"\Gamma", r"\zeta") and self.peek() == "(":
            return ("call", token[1:].lower(), *self.arguments())
        if index := self.index():
            return ("call", "f", ("number", Fraction(sum(map(ord, token)))), index)
        name = token + self.subscript()
        if name in _OPAQUE and self.peek() == "(":
            return ("call", name, *self.arguments())
        if name in ("C", "P") and self.peek() == "(" and self._has_comma():
            return ("call", "binomial" if name == "C" else "permutations", *self.arguments())
        return ("symbol", name)

    def _has_comma(self) -> bool:
        depth = 0
        for token in self._tokens[self._position :]:
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return False
            if token == "," and depth == 1:
                return True
        return False

    def index(self) -> Node | None:
        """A subscript in braces that is a formula with letters: `F_{n-k-1}` is a function of it."""
        start = self._position
        if self.accept("_"):
            try:
                node = self.group()
            except UnreadableError:
                node = ("number", Fraction(0))
            if _has_symbol(node):
                return node
        self._position = start
        return None

    def subscript(self) -> str:
        if not self.accept("_"):
            return ""
        if not self.accept("{"):
            return "_" + self.next()
        parts = []
        while (token := self.next()) != "}":
            parts.append(token)
        return "_" + "".join(parts)

    def arguments(self) -> list[Node]:
        self.expect("(")
        nodes = [self.sum()]
        while self.accept(","):
            nodes.append(self.sum())
        self.expect(")")
        return nodes

    def function(self, name: str) -> Node:
        """`\\sin^2 x`, `\\log_2 8`, `\\sin 2x`, `\\max(3, 5)`: without brackets, the argument is the product behind."""
        base = self.base() if name == "log" else None
        exponent = self.exponent() if self.accept("^") else None
        if exponent == ("negative", ("number", Fraction(1))) and name in _INVERSES:
            name, exponent = _INVERSES[name], None
        arguments = self.arguments() if self.peek() == "(" else [self.bare_argument()]
        node: Node = ("call", name, *arguments)
        if base is not None:
            node = ("divide", ("call", "ln", *arguments), ("call", "ln", base))
        return node if exponent is None else ("power", node, exponent)

    def base(self) -> Node | None:
        return self.group() if self.accept("_") else None

    def bare_argument(self) -> Node:
        if self.accept("-"):
            return ("negative", self.bare_argument())
        node = self.power()
        while self._starts_factor() and self.peek() not in FUNCTIONS and self.peek() != "(":
            node = ("multiply", node, self.power())
        return node

    def _starts_factor(self) -> bool:
        token = self.peek()
        return token is not None and token not in _STOPS and token not in "^_" if token != "|" else self._bars == 0

    def fraction(self) -> Node:
        above, below = self.group(), self.group()
        if above == ("symbol", "d") and below[0] == "multiply" and below[1] == above:
            raise UnreadableError("a derivative")
        return ("divide", above, below)

    def root(self) -> Node:
        degree: Node = ("number", Fraction(2))
        if self.accept("["):
            degree = self.sum()
            self.expect("]")
        return ("root", self.group(), degree)

    def binomial(self) -> Node:
        return ("call", "binomial", self.group(), self.group())

    def conjugate(self) -> Node:
        return ("call", "conjugate", self.group())

    def series(self, kind: str) -> Node:
        self.expect("_")
        self.expect("{")
        variable = self.next()
        self.expect("=")
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self.group()
        return (kind, variable, low, high, self.product())


_COMMANDS: dict[str, Any] = {
    r"\frac": _Parser.fraction,
    r"\sqrt": _Parser.root,
    r"\binom": _Parser.binomial,
    r"\overline": _Parser.conjugate,
    r"\bar": _Parser.conjugate,
    r"\pi": lambda parser: ("pi",),
    r"\infty": lambda parser: ("infinity",),
    r"\sum": lambda parser: parser.series("sum"),
    r"\prod": lambda parser: parser.series("product"),
}
