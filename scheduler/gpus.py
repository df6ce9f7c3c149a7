"""What GPUs can do, by their names or compute capability: estimates for plans, of devices that need not exist."""

from __future__ import annotations

import re
from typing import NamedTuple

#: what kernels get of the peaks that makers promise: arithmetic, memory
_OF_PEAK, _OF_BANDWIDTH = 0.5, 0.8


#: memory that processes read of each other is in pieces of this
SLOT_NBYTES = 2 << 20


def slot_nbytes(nbytes: int) -> int:
    """What a value takes of its GPU's memory while GPUs of other processes may read it: whole pieces."""
    return max(1, -(-nbytes // SLOT_NBYTES)) * SLOT_NBYTES


class GpuFigures(NamedTuple):
    """Peaks of dense arithmetic and of memory, as the maker has them."""

    tflops: float  # float32
    tf32_tflops: float  # products of float32 in TF32; as float32 where there is none
    half_tflops: float  # products of 16 bits
    gbytes_per_s: float  # of its memory
    memory_gbytes: float
    peer_gbytes_per_s: float = 25.0  # to another GPU of the host: PCIe, else NVLink in one direction

    @property
    def gflops(self) -> float:
        """What kernels reach, in float32."""
        return self.tflops * 1e3 * _OF_PEAK

    @property
    def product_gflops(self) -> float:
        """What products of float32 reach, with TF32."""
        return self.tf32_tflops * 1e3 * _OF_PEAK

    @property
    def half_gflops(self) -> float:
        """What products of 16 bits reach."""
        return self.half_tflops * 1e3 * _OF_PEAK

    @property
    def reached_gbytes_per_s(self) -> float:
        return self.gbytes_per_s * _OF_BANDWIDTH


#: a word of the name, as drivers and Ray write it -> figures; the first that is in a name counts
_BY_NAME: dict[str, GpuFigures] = {
    "B200": GpuFigures(75, 1100, 2250, 8000, 180, 900),
    "GB200": GpuFigures(75, 1100, 2250, 8000, 180, 900),
    "H200": GpuFigures(67, 494, 989, 4800, 141, 450),
    "GH200": GpuFigures(67, 494, 989, 4000, 96, 450),
    "H100 PCIE": GpuFigures(51, 378, 756, 2000, 80),
    "H100": GpuFigures(67, 494, 989, 3350, 80, 450),
    "A100-SXM4-40GB": GpuFigures(19.5, 156, 312, 1555, 40, 300),
    "A100-PCIE-40GB": GpuFigures(19.5, 156, 312, 1555, 40),
    "A100-40G": GpuFigures(19.5, 156, 312, 1555, 40, 300),
    "A100 80GB PCIE": GpuFigures(19.5, 156, 312, 1935, 80),
    "A100": GpuFigures(19.5, 156, 312, 2039, 80, 300),
    "A10G": GpuFigures(31.5, 35, 70, 600, 24),
    "A10": GpuFigures(31.2, 62.5, 125, 600, 24),
    "A40": GpuFigures(37.4, 74.8, 150, 696, 48),
    "L40S": GpuFigures(91.6, 183, 362, 864, 48),
    "L40": GpuFigures(90.5, 90.5, 181, 864, 48),
    "L4": GpuFigures(30.3, 60, 121, 300, 24),
    "T4": GpuFigures(8.1, 8.1, 65, 320, 16),
    "V100": GpuFigures(15.7, 15.7, 125, 900, 16, 150),
    "P100": GpuFigures(10.6, 10.6, 21.2, 732, 16),
    "RTX 5090": GpuFigures(105, 105, 210, 1792, 32),
    "RTX 4090": GpuFigures(82.6, 82.6, 165, 1008, 24),
    "RTX 3090": GpuFigures(35.6, 35.6, 71, 936, 24),
}
#: for names that aren't known: a usual GPU of the capability, or of the last one below it
_BY_CAPABILITY: dict[tuple[int, int], str] = {
    (6, 0): "P100",
    (7, 0): "V100",
    (7, 5): "T4",
    (8, 0): "A100",
    (8, 6): "A10",
    (8, 9): "L4",
    (9, 0): "H100",
    (10, 0): "B200",
    (12, 0): "RTX 5090",
}
#: a GPU of which nothing is known
USUAL = _BY_NAME["A100"]._replace(peer_gbytes_per_s=25.0)


def figures_named(name: str) -> GpuFigures | None:
    """Figures of a GPU whose name says what it is; None for others."""
    for known, figures in _BY_NAME.items():
        # "A10" is not in "A100", and Ray writes spaces as dashes
        pattern = r"(?<![A-Z0-9])" + re.escape(known).replace(r"\ ", "[ -]").replace(r"\-", "[ -]") + r"(?![0-9])"
        if re.search(pattern, name.upper()):
            return figures
    return None


def figures_of(name: str = "", capability: tuple[int, int] | None = None) -> GpuFigures:
    """Figures of a GPU: by its name, else by its compute capability, else of a usual one."""
    named = figures_named(name)
    if named is not None:
        return named
    below = [known for known in _BY_CAPABILITY if capability is not None and known <= capability]
    # how such a GPU is linked to others its capability doesn't tell
    return _BY_NAME[_BY_CAPABILITY[max(below)]]._replace(peer_gbytes_per_s=25.0) if below else USUAL
