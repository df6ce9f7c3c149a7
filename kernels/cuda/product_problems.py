"""Matrix products for cuBLASLt: what is multiplied, how operands lie, and what the library refuses."""

from __future__ import annotations

from dataclasses import dataclass

from distort.kernels.cuda import blaslt_api as api

#: dtype -> dtypes that its products may be stored as
RESULTS = {
    "float32": ("float32",),
    "float64": ("float64",),
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "int8": ("int32",),
}
ITEM_NBYTES = {"float64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
ACTIVATIONS = {"": 0, "relu": api.EPILOGUE_RELU, "gelu_tanh": api.EPILOGUE_GELU}


@dataclass(frozen=True, slots=True)
class Matrix:
    """How a matrix lies: ``leading`` elements from row to row, or from column to column where it is ``transposed``.

    ``batch_stride``: elements from matrix to matrix; 0 where all products read the same.
    """

    leading: int
    transposed: bool = False
    batch_stride: int = 0


@dataclass(frozen=True, slots=True)
class ProductProblem:
    """out = activation(alpha · a · b + beta · c + bias): a [rows, depth], b [depth, columns], bias [columns]."""

    dtype: str
    rows: int
    columns: int
    depth: int
    a: Matrix
    b: Matrix
    out: Matrix
    batch: int = 1
    result: str = ""  # dtype of out, c and bias; as ``dtype`` where not given
    alpha: float = 1.0
    beta: float = 0.0
    c: Matrix | None = None
    bias: bool = False
    activation: str = ""
    tf32: bool = False  # float32 operands may be rounded to 10 bits of mantissa

    def __post_init__(self) -> None:
        if not self.result:
            object.__setattr__(self, "result", "int32" if self.dtype == "int8" else self.dtype)
        if self.result not in RESULTS.get(self.dtype, ()):
            raise ValueError(f"no product of {self.dtype} is stored as {self.result}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}: there are {', '.join(filter(None, ACTIVATIONS))}"
            )
        if min(self.rows, self.columns, self.depth, self.batch) < 1:
            raise ValueError(f"an empty product is none of cuBLASLt's: {self}")
        if (self.c is None) != (self.beta == 0.0):
            raise ValueError("c is there where beta is not 0, and nowhere else")
        sizes = [(self.a, self.rows, self.depth), (self.b, self.depth, self.columns)]
        sizes += [(matrix, self.rows, self.columns) for matrix in (self.out, self.c) if matrix is not None]
        for matrix, rows, columns in sizes:
            if matrix.leading < (rows if matrix.transposed else columns):
                raise ValueError(f"lines of [{rows}, {columns}] would overlap: {matrix}")
        if self.out.transposed or (self.c is not None and self.c.transposed):
            raise ValueError("results lie row by row: multiply the transposed matrices in the other order")
        if self.batch > 1 and self.out.batch_stride < 1:
            raise ValueError("results of a batch would overlap")

    def __str__(self) -> str:
        def written(name: str, matrix: Matrix, rows: int, columns: int) -> str:
            turned = " transposed" if matrix.transposed else ""
            step = f", batch stride {matrix.batch_stride}" if self.batch > 1 else ""
            return f"{name} [{rows}, {columns}]{turned} (leading dimension {matrix.leading}{step})"

        parts = [written("a", self.a, self.rows, self.depth), written("b", self.b, self.depth, self.columns)]
        epilogue = " + ".join(filter(None, ["c" if self.c else "", "bias" if self.bias else "", self.activation]))
        batch = f"{self.batch} products of " if self.batch > 1 else ""
        return f"{batch}{self.dtype} {' · '.join(parts)} as {self.result}{f' with {epilogue}' if epilogue else ''}"


def refusal(problem: ProductProblem) -> str:
    """Why the library has no such product, as far as its documentation says; "" where it doesn't say so."""
    p = problem
    if p.dtype in ("int8", "float64") and (p.bias or p.activation):
        return f"products of {p.dtype} have no epilogue"
    if p.dtype != "int8":
        return ""
    if p.a.transposed or not p.b.transposed:
        return "products of int8 want a by rows and b by columns"
    lines = [p.a.leading, p.b.leading, p.out.leading, *([p.c.leading] if p.c else [])]
    if any(n % 4 for n in (p.columns, p.depth, *lines)):
        return "products of int8 want columns, depth and leading dimensions that are multiples of 4"
    return ""


__all__ = ["ACTIVATIONS", "ITEM_NBYTES", "RESULTS", "Matrix", "ProductProblem", "refusal"]
