"""Matrix products: MatMul and its quantized forms, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

from .elementwise import broadcast_dim
from .rules import MICROSOFT, Site, rule
from .values import Refused, Tensor, Value, product


def product_of(a: Tensor, b: Tensor) -> Tensor:
    """The shape and axis of numpy's matmul."""
    if a.axis is None and b.axis is None and (a.shape is None or b.shape is None):
        return Tensor()
    if a.rank == 0 or b.rank == 0:
        raise Refused("it multiplies a scalar")
    if a.axis == a.rank - 1 or (b.axis is not None and b.axis == max(0, b.rank - 2)):
        raise Refused("it sums over the batch axis")
    left = a.dims if a.rank > 1 else (1, *a.dims)  # [..., M, K]
    right = b.dims if b.rank > 1 else (*b.dims, 1)  # [..., K, N]
    rank = max(len(left), len(right))
    # where samples lie, counted from the end of the product before the 1 of a vector goes
    ends = []
    for value, own in ((a, 2), (b, 1)):
        if value.axis is not None:
            end = value.rank - value.axis
            ends.append((end, end == own, value))
    if len(ends) == 2:
        if ends[0][1] or ends[1][1] or ends[0][0] != ends[1][0] or a.rows != b.rows:
            raise Refused("it multiplies samples with other samples")
    elif ends:
        end, is_own, value = ends[0]
        other = right if value is a else left
        if not is_own and len(other) >= end and other[-end] != 1:
            raise Refused("its other operand has rows along the batch axis that are the same for every part")
    dims: list[int | None] = []
    for i in range(2 - rank, 0):
        at = [full[i - 2] for full in (left, right) if len(full) >= 2 - i]
        dims.append(broadcast_dim(at) if not ends or ends[0][1] or i - 2 != -ends[0][0] else ends[0][2].rows)
    dims += [left[-2], right[-1]]
    axis = rank - ends[0][0] if ends else None
    if b.rank == 1:
        del dims[-1]
    if a.rank == 1:
        place = len(dims) - (1 if b.rank == 1 else 2)
        del dims[place]
        axis = None if axis is None else axis - (axis > place)
    return Tensor(tuple(dims), axis)


@rule("MatMul", samples=(0, 1))
def matmul(site: Site) -> Value:
    return product_of(site.tensor(0), site.tensor(1))


def _one_for_all(site: Site, *positions: int) -> None:
    """Scales and zero points of what may be made of samples must not be one for a row."""
    for position in positions:
        given = site.optional(position)
        if given is not None and given.shape is not None and all(dim == 1 for dim in given.shape):
            continue
        if given is not None:
            site.refuse(f"its input {position} may hold a value for each row")


@rule("MatMulInteger", samples=(0, 1))
def matmul_integer(site: Site) -> Value:
    a, b = site.tensor(0), site.tensor(1)
    if a.axis is not None:
        _one_for_all(site, 2)
    if b.axis is not None:
        _one_for_all(site, 3)
    return product_of(a, b)


rule("MatMulInteger16", domain=MICROSOFT, samples=(0, 1))(matmul)


@rule("QLinearMatMul", samples=(0, 3))
def quantized_matmul(site: Site) -> Value:
    a, b = site.tensor(0), site.tensor(3)
    if a.axis is not None:
        _one_for_all(site, 1, 2, 6, 7)
    if b.axis is not None:
        _one_for_all(site, 4, 5, 6, 7)
    return product_of(a, b)


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(site: Site) -> Value:
    a, b = site.tensor(0), site.tensor(1)
    if a.axis is not None:
        _one_for_all(site, 2, 4)
    return product_of(a, b)


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT, samples=(0, 1))
def fused_matmul(site: Site) -> Value:
    if site.attribute("transBatchA", 0) or site.attribute("transBatchB", 0):
        site.refuse("it moves its leading dimensions")
    values = [site.tensor(0), site.tensor(1)]
    for i, name in enumerate(("transA", "transB")):
        if site.attribute(name, 0) and values[i].rank > 1:
            values[i] = _swapped(values[i])
    return product_of(*values)


def _swapped(value: Tensor) -> Tensor:
    *leading, rows, columns = value.dims
    swap = {value.rank - 1: value.rank - 2, value.rank - 2: value.rank - 1}
    axis = None if value.axis is None else swap.get(value.axis, value.axis)
    return Tensor((*leading, columns, rows), axis)


@rule("MatMulNBits", "MatMulBnb4", domain=MICROSOFT)
def matmul_blocks(site: Site) -> Value:
    value = site.tensor()
    if value.axis == value.rank - 1:
        site.refuse("it sums over the batch axis")
    bias = site.optional(5)
    if site.node.op_type == "MatMulNBits" and bias is not None and bias.rank > 1:
        site.refuse("its bias has more than one dimension")
    return Tensor((*value.dims[:-1], site.attribute("N")), value.axis)


@rule("Gemm", samples=(0, 1, 2))
def gemm(site: Site) -> Value:
    return gemm_of(site, site.tensor(0), site.tensor(1), site.optional(2))


def gemm_of(site: Site, a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    if a.rank != 2 or b.rank != 2:
        site.refuse("its operands are no matrices")
    a = _swapped(a) if site.attribute("transA", 0) else a
    b = _swapped(b) if site.attribute("transB", 0) else b
    result = product_of(a, b)
    if c is None:
        return result
    # the sum keeps the product's shape
    axis = result.axis
    if axis is None:
        if c.axis is not None:
            site.refuse("it adds samples to what is the same for every part")
        return result
    end = 2 - axis
    if c.axis is not None:
        if c.rank - c.axis != end or c.rows != result.rows:
            site.refuse("it adds samples that lie along another axis")
    elif c.rank >= end and c.dims[-end] != 1:
        site.refuse("what it adds has rows along the batch axis that are the same for every part")
    return result


rule("FusedGemm", domain=MICROSOFT, samples=(0, 1, 2))(gemm)


@rule("QGemm", domain=MICROSOFT)
def quantized_gemm(site: Site) -> Value:
    a = site.tensor(0)
    if a.axis is not None:
        _one_for_all(site, 1, 2)
    return gemm_of(site, a, site.tensor(3), site.optional(6))


@rule("Einsum", samples=(-1,))
def einsum(site: Site) -> Value:
    values = site.tensors()
    if all(value.axis is None for value in values) and any(value.shape is None for value in values):
        return Tensor()
    terms, output = _labels(site, str(site.attribute("equation", "")), [value.rank for value in values])
    extents: dict[str, list[int | None]] = {}
    batch = None
    rows = set()
    for term, value in zip(terms, values, strict=True):
        for place, (label, dim) in enumerate(zip(term, value.dims, strict=True)):
            extents.setdefault(label, []).append(dim)
            if place == value.axis:
                if batch not in (None, label) or term.count(label) > 1:
                    site.refuse("it puts samples together with other samples")
                batch = label
                rows.add(value.rows)
    if batch is None:
        return Tensor(tuple(broadcast_dim(extents[label]) for label in output))
    if batch not in output:
        site.refuse("it sums over the batch axis")
    if len(rows) > 1 or output.count(batch) > 1:
        site.refuse("it puts samples together with other samples")
    for term, value in zip(terms, values, strict=True):
        for label, dim in zip(term, value.dims, strict=True):
            if label == batch and value.axis is None and dim != 1:
                site.refuse("an operand that is the same for every part has rows along the batch axis")
            if label == batch and value.axis is not None and term.index(label) != value.axis:
                site.refuse("it puts samples together with other samples")
    dims = [rows.copy().pop() if label == batch else broadcast_dim(extents[label]) for label in output]
    return Tensor(tuple(dims), output.index(batch))


def _labels(site: Site, equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """A label for each dimension of each operand and of the result; those of an ellipsis are '0' at its end."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        site.refuse("its equation has another number of operands")
    terms = []
    widest = 0
    for text, rank in zip(texts, ranks, strict=True):
        before, dots, after = text.partition("...")
        covered = rank - len(before) - len(after)
        if covered < 0 or (covered and not dots):
            site.refuse("its equation doesn't fit its operands")
        widest = max(widest, covered)
        terms.append([*before, *(str(i) for i in reversed(range(covered))), *after])
    ellipsis = [str(i) for i in reversed(range(widest))]
    if not arrow:
        once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        return terms, [*ellipsis, *once]
    before, dots, after = right.partition("...")
    return terms, [*before, *(ellipsis if dots else ()), *after]


@rule("MoE", "QMoE", domain=MICROSOFT, samples=(0, 1, 14))
def experts(site: Site) -> Value:
    """Each token goes its own way: x [tokens, H] or [N, S, H], what routes it [tokens, E]."""
    value = site.tensor()
    for position in (1, 14) if site.node.op_type == "QMoE" else (1,):
        routes = site.optional(position)
        if routes is None or (routes.axis is None and value.axis is None):
            continue
        if value.axis != 0 or routes.axis != 0 or product(value.dims[:-1]) != routes.rows:
            site.refuse("its routes are not those of the samples")
    return Tensor(value.dims, value.axis)
