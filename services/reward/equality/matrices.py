"""Matrices, their sums and products, and determinants of two rows, as formulas of their cells."""

from __future__ import annotations

import re

from services.reward.equality.brackets import closes_at_end, split

MAX_MATRICES = 4  # in a sum or product
VECTOR = re.compile(r"^\\begin\{pmatrix\}(.+)\\end\{pmatrix\}$", re.DOTALL)
_MATRIX_TERM = re.compile(
    r"\s*([-+]?(?:[\w.]|\\frac\{[^{}]*\}\{[^{}]*\}|\\(?:cdot|sqrt\{[^{}]*\}|lambda|theta))*)\s*"
    r"\\begin\{pmatrix\}((?:(?!\\begin).)*?)\\end\{pmatrix\}(\^\{?(?:T|\\top)\}?)?",
    re.DOTALL,
)
_CELL = r"\s*([^&\\{}]+?)\s*"
_DETERMINANT = re.compile(rf"\\begin\{{vmatrix\}}{_CELL}&{_CELL}\\\\{_CELL}&{_CELL}(?:\\\\)?\s*\\end\{{vmatrix\}}")


def rows_of(text: str) -> list[list[str]] | None:
    """The rows of a matrix of more than one row and column."""
    if (match := VECTOR.match(text)) and match[1].count("pmatrix") == 0:
        rows = matrix_rows(match[1])
        return rows if len(rows) > 1 and len(rows[0]) > 1 else None
    if text.startswith("Matrix("):
        text = text[7:-1]
    if text.startswith("[") and text.endswith("]") and closes_at_end(text):
        items = split(text[1:-1], ",")
        if len(items) > 1 and all(item.startswith("[") and item.endswith("]") for item in items):
            return [split(item[1:-1], ",") for item in items]
    return None


def matrix_of(text: str) -> list[list[str]] | None:
    """The cells of a matrix, or of a sum of matrices with factors, as formulas; a column has rows of one cell."""
    if rows := rows_of(text):
        return rows
    terms = _MATRIX_TERM.findall(text) if "pmatrix" in text else []
    if not 0 < len(terms) <= MAX_MATRICES or _MATRIX_TERM.sub("", text).strip():
        return None
    total: list[list[str]] | None = None
    for written, content, transposed in terms:
        factor = written.strip().removesuffix(r"\cdot").strip()
        cells = matrix_rows(content)
        if transposed:
            cells = [list(column) for column in zip(*cells, strict=False)]
        if total is None:
            total = _scaled(cells, factor)
        elif not factor:
            total = _product(total, cells)
        else:
            total = _sum(total, _scaled(cells, factor))
        if total is None:
            return None
    return total


def _scaled(cells: list[list[str]], factor: str) -> list[list[str]]:
    factor = factor + "1" if factor in ("", "+", "-") else factor
    return [[f"{factor}\\cdot({cell})" for cell in row] for row in cells]


def _sum(left: list[list[str]], right: list[list[str]]) -> list[list[str]] | None:
    if [len(row) for row in left] != [len(row) for row in right]:
        return None
    pairs = (zip(one, other, strict=True) for one, other in zip(left, right, strict=True))
    return [[f"{a}{b}" if b[0] in "+-" else f"{a}+{b}" for a, b in row] for row in pairs]


def _product(left: list[list[str]], right: list[list[str]]) -> list[list[str]] | None:
    columns = list(zip(*right, strict=False))
    if any(len(row) != len(right) for row in left):
        return None
    return [["+".join(f"({a})({b})" for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def without_determinants(reference: str, answer: str) -> tuple[str, str] | None:
    """Both with determinants of two rows multiplied out; None if there are none."""
    both = tuple(_DETERMINANT.sub(r"((\1)(\4)-(\2)(\3))", text) for text in (reference, answer))
    return both if both != (reference, answer) else None  # type: ignore[return-value]


def matrix_rows(text: str) -> list[list[str]]:
    """The cells of a LaTeX matrix, row by row."""
    rows = re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-z])", text)
    return [[cell.strip() for cell in row.split("&")] for row in rows if row.strip(" &")]
