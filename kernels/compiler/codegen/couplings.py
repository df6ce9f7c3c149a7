"""Probabilities of classes from those of their pairs (Wu, Lin and Weng 2004, second method, as libsvm iterates it)."""

from __future__ import annotations

from collections.abc import Callable

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value

#: sweeps over the classes, at most, where there are no more of these
SWEEPS = 100


def emit_couplings(f: Function, target: Target) -> None:
    """Words: rows, classes n, probabilities of the first of each pair (float32 [rows, n(n - 1)/2]), result (float32
    [rows, n]), scratch memory, its bytes a thread.

    p minimises pᵀQp with Q_tt = Σ r_jt² and Q_tj = -r_tj r_jt.
    """
    del target
    n_rows, n = f.word(0), f.word(1)
    pairwise, result = f.address(2), f.address(3)
    q = f.at(f.address(4), f.mul(f.thread, f.word(5)), "i8")  # [n, n]
    p = f.at(q, f.mul(n, n), "double")
    qp = f.at(p, n, "double")
    zero, one = f.const("double", 0), f.const("double", 1)
    real_n = f.op("double", f"sitofp {n} to double")
    enough = f.fdiv(f.const("double", 0.005), real_n)
    n_pairs = f.div(f.mul(n, f.sub(n, 1)), 2)

    def cell(i: Index, j: Index) -> Value:
        return f.at(q, f.add(f.mul(i, n), j), "double")

    begin, end = f.share(n_rows)
    with f.loop(begin, end) as row:
        own = f.at(pairwise, f.mul(row.index, n_pairs), "float")
        with f.loop(0, n) as i:
            f.store(zero, cell(i.index, i.index))
        with f.loop(0, n, 1, [f.i64(0)]) as i:
            with f.loop(f.add(i.index, 1), n, 1, [i.carried[0]]) as j:
                r = f.cast("fpext", f.load("float", f.at(own, j.carried[0], "float")), "double")
                s = f.fsub(one, r)
                for index, value in ((i.index, s), (j.index, r)):
                    place = cell(index, index)
                    f.store(f.fadd(f.load("double", place), f.fmul(value, value)), place)
                product = f.fsub(zero, f.fmul(r, s))
                f.store(product, cell(i.index, j.index))
                f.store(product, cell(j.index, i.index))
                j.carry([f.i64(f.add(j.carried[0], 1))])
            i.carry([j.carried[0]])
        with f.loop(0, n) as i:
            f.store(f.fdiv(one, real_n), f.at(p, i.index, "double"))
        with f.loop(0, f.max(n, SWEEPS)) as sweep:
            with f.loop(0, n, 1, [zero]) as i:
                with f.loop(0, n, 1, [zero]) as j:
                    j.carry([f.fma(f.load("double", cell(i.index, j.index)), _at(f, p, j.index), j.carried[0])])
                f.store(j.carried[0], f.at(qp, i.index, "double"))
                i.carry([f.fma(_at(f, p, i.index), j.carried[0], i.carried[0])])
            total = i.carried[0]
            with f.loop(0, n, 1, [zero]) as i:
                off = f.unary("fabs", f.fsub(_at(f, qp, i.index), total))
                i.carry([f.intrinsic("maximum", i.carried[0], off)])
            moving = f.fcmp("oge", i.carried[0], enough)
            with f.when(moving):
                _sweep(f, n, p, qp, cell, total)
            sweep.step = f.select(moving, f.i64(1), f.i64(1 << 40))
        with f.loop(0, n) as i:
            value = f.cast("fptrunc", _at(f, p, i.index), "float")
            f.store(value, f.at(result, f.add(f.mul(row.index, n), i.index), "float"))
    f.ret()


def _at(f: Function, base: Value, index: Index) -> Value:
    return f.load("double", f.at(base, index, "double"))


def _sweep(f: Function, n: Value, p: Value, qp: Value, cell: Callable[[Index, Index], Value], total: Value) -> None:
    """Each class in turn is given its best probability, and all are scaled to a sum of one. ``total``: pᵀQp"""
    one, two = f.const("double", 1), f.const("double", 2)
    with f.loop(0, n, 1, [total]) as t:
        (total,) = t.carried
        diagonal, own = f.load("double", cell(t.index, t.index)), _at(f, qp, t.index)
        step = f.fdiv(f.fsub(total, own), diagonal)
        place = f.at(p, t.index, "double")
        f.store(f.fadd(f.load("double", place), step), place)
        scale = f.fdiv(one, f.fadd(one, step))
        grown = f.fma(step, f.fma(step, diagonal, f.fmul(two, own)), total)
        t.carry([f.fmul(f.fmul(grown, scale), scale)])
        with f.loop(0, n) as j:
            column = f.load("double", cell(j.index, t.index))
            for base, value in ((qp, f.fma(step, column, _at(f, qp, j.index))), (p, _at(f, p, j.index))):
                f.store(f.fmul(value, scale), f.at(base, j.index, "double"))


def emit_expect_ones(f: Function, target: Target) -> None:
    """Words: how many numbers, these (float32), the error word: 1 is written there where one of them is none."""
    del target
    with f.loop(0, f.word(0)) as item:
        value = f.load("float", f.at(f.address(1), item.index, "float"))
        with f.when(f.fcmp("une", value, f.const("float", 1))):
            f.store(f.i64(1), f.address(2))
    f.ret()
