"""Det, and Einsum as products of matrices."""

from __future__ import annotations

import math
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import rounded, working
from distort.kernels.ops.matmul import product
from distort.kernels.registry import kernel


@kernel("Det", 11)
def det(xp: Any, x: Any) -> Any:
    """x: [..., M, M] -> [...]."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise InvalidInput(f"input of shape {list(x.shape)} is no batch of square matrices")
    return rounded(xp, xp.linalg.det(working(xp, x)), x)


#: stands for the dimensions of an ellipsis, of which there may be several: letters no equation can have
_ELLIPSIS = "\u03b1\u03b2\u03b3\u03b4\u03b5\u03b6\u03b7\u03b8\u03b9\u03ba\u03bb\u03bc\u03bd\u03be\u03bf\u03c0"


def _expanded(term: str, rank: int | None, ellipsis: str) -> str:
    """A term with its ellipsis written out as the last of ``ellipsis``' letters."""
    before, dots, after = term.partition("...")
    if "." in before or "." in after:
        raise InvalidInput(f"term {term!r} of the equation has a misplaced dot")
    if not dots:
        return term
    count = len(ellipsis) if rank is None else rank - len(before) - len(after)
    if not 0 <= count <= len(ellipsis):
        raise InvalidInput(f"term {term!r} of the equation does not fit rank {rank}")
    return before + ellipsis[len(ellipsis) - count :] + after


def parse_equation(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Input terms and output term, ellipses written out."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise InvalidInput(f"equation {equation!r} has {len(terms)} terms for {len(ranks)} inputs")
    dots = [rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    if any(not 0 <= count <= len(_ELLIPSIS) for count in dots):
        raise InvalidInput(f"equation {equation!r} does not fit inputs of ranks {ranks}")
    ellipsis = _ELLIPSIS[: max(dots, default=0)]
    terms = [_expanded(term, rank, ellipsis) for term, rank in zip(terms, ranks, strict=True)]
    if arrow:
        output = _expanded(right, None, ellipsis)
    else:
        letters = "".join(terms)
        output = ellipsis + "".join(c for c in sorted(set(letters) - set(ellipsis)) if letters.count(c) == 1)
    for term, rank in zip(terms, ranks, strict=True):
        if len(term) != rank:
            raise InvalidInput(f"term {term!r} of equation {equation!r} does not fit rank {rank}")
    used = set("".join(terms))
    if len(set(output)) != len(output) or not used.issuperset(output):
        raise InvalidInput(f"output {output!r} of equation {equation!r} repeats a letter or has one that no input has")
    if not all(letter in _ELLIPSIS or (letter.isascii() and letter.isalpha()) for letter in used):
        raise InvalidInput(f"equation {equation!r} holds other characters than letters")
    return terms, output


def _diagonal(xp: Any, x: Any, term: str) -> tuple[Any, str]:
    """A letter that a term repeats stands for the diagonal."""
    for letter in set(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            if x.shape[first] != x.shape[second]:
                raise InvalidInput(f"letter {letter!r} stands for sizes {x.shape[first]} and {x.shape[second]}")
            x = xp.diagonal(x, axis1=first, axis2=second)  # moves the diagonal to the end
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    return x, term


def _summed(xp: Any, x: Any, term: str, keep: set[str]) -> tuple[Any, str]:
    """x summed over the letters that nothing else needs."""
    over = tuple(i for i, letter in enumerate(term) if letter not in keep)
    if not over:
        return x, term
    return xp.asarray(xp.sum(x, axis=over, dtype=x.dtype)), "".join(letter for letter in term if letter in keep)


def _pair(xp: Any, a: Any, a_term: str, b: Any, b_term: str, keep: set[str]) -> tuple[Any, str]:
    """Two operands contracted over the letters they share and nobody keeps, as one batch of matrix products."""
    sizes: dict[str, int] = {}
    for letter, length in (*zip(a_term, a.shape, strict=True), *zip(b_term, b.shape, strict=True)):
        if sizes.setdefault(letter, length) != length:
            if 1 not in (sizes[letter], length):
                raise InvalidInput(f"letter {letter!r} stands for sizes {sizes[letter]} and {length}")
            sizes[letter] = max(sizes[letter], length)
    shared = [letter for letter in a_term if letter in b_term]
    batch = [letter for letter in shared if letter in keep]
    inner = [letter for letter in shared if letter not in keep]
    rows = [letter for letter in a_term if letter not in b_term]
    columns = [letter for letter in b_term if letter not in a_term]

    def arranged(x: Any, term: str, groups: list[list[str]]) -> Any:
        order = [letter for group in groups for letter in group]
        x = xp.transpose(x, [term.index(letter) for letter in order])
        return xp.broadcast_to(x, [sizes[letter] for letter in order])

    def size(letters: list[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    left = arranged(a, a_term, [batch, rows, inner]).reshape(size(batch), size(rows), size(inner))
    right = arranged(b, b_term, [batch, inner, columns]).reshape(size(batch), size(inner), size(columns))
    if not inner:
        result = xp.multiply(left, right)
    else:
        result = product(xp, left, right)
    letters = [*batch, *rows, *columns]
    return result.reshape([sizes[letter] for letter in letters]), "".join(letters)


@kernel("Einsum", 12)
def einsum(xp: Any, *inputs: Any, equation: str) -> Any:
    """Operands are contracted from left to right. 16-bit floats accumulate in float32."""
    terms, output = parse_equation(equation, [x.ndim for x in inputs])
    operands = [_diagonal(xp, working(xp, x), term) for x, term in zip(inputs, terms, strict=True)]
    result, term = operands[0]
    for position, (x, other) in enumerate(operands[1:], start=1):
        later = {letter for _, rest in operands[position + 1 :] for letter in rest} | set(output)
        result, term = _summed(xp, result, term, later | set(other))
        x, other = _summed(xp, x, other, later | set(term))
        result, term = _pair(xp, result, term, x, other, later)
    result, term = _summed(xp, result, term, set(output))
    return rounded(xp, xp.transpose(result, [term.index(letter) for letter in output]), inputs[0])
