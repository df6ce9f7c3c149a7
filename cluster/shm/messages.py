"""The messages of stages' loops and their caller: kinds, heads, and what an answer holds."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distort.cluster.orders import StageReport
from distort.cluster.shm.channel import FIRST_KIND
from distort.cluster.shm.slots import Reading
from distort.cluster.shm.wire import read_values

HELLO, TEMPLATE, RUN, CANCEL, RELEASE, MAIL, DONE, FAILED, BYE, FETCH, FETCHED, MISSING = range(
    FIRST_KIND, FIRST_KIND + 12
)

# those of values end with the bytes of their layout
RUN_HEAD = struct.Struct("<BIQQI")  # kind, template, run, oldest run under way
MAIL_HEAD = struct.Struct("<BQIQI")  # kind, run, number of an order that goes along (0: none), oldest run
DONE_HEAD = struct.Struct("<BQII")  # kind, run, bytes of the report that follows the values
KEYS_HEAD = struct.Struct("<BI")  # kind, number of keys
NUMBER_HEAD = struct.Struct("<BQ")  # kind, run
FETCH_HEAD = struct.Struct("<BQQ")  # kind, number of the request, key
TEMPLATE_HEAD = struct.Struct("<BI")  # kind, template
KEY = struct.Struct("<Q")

#: who the caller is, among units
CALLER = -1
#: reports up to this size lie behind the values; larger ones are a value of their own
REPORT_NBYTES = 32768
#: the number of that value
REPORT_NAME = 0xFFFF


def read_done(
    data: memoryview, find: Callable[[int], Any], names: Sequence[str], leases: set[int]
) -> tuple[int, dict[str, tuple[Any, int]], StageReport | None]:
    """A DONE message: the run, its values with their bytes, the report where it has one.

    The values are the caller's own, copies or leased.
    """
    _, run, report_nbytes, layout_nbytes = DONE_HEAD.unpack_from(data)
    readings: list[Reading] = []
    found, offset = read_values(data, DONE_HEAD.size, layout_nbytes, find, readings, leases)
    report: StageReport | None = None
    values: dict[str, tuple[Any, int]] = {}
    for name, value, nbytes in found:
        if name == REPORT_NAME:
            report = pickle.loads(value)
        else:
            borrowed = bool(readings) and isinstance(value, np.ndarray) and not value.flags.writeable
            values[names[name]] = (value.copy() if borrowed else value, nbytes)
    if report is None and report_nbytes:
        report = pickle.loads(data[offset : offset + report_nbytes])
    del found
    for reading in readings:
        reading.release()
    return run, values, report


def read_told(data: memoryview, find: Callable[[int], Any]) -> tuple[int, Any, int]:
    """A message of one value: the number of its run or request, a copy of the value, its bytes."""
    _, number, _, _, layout_nbytes = MAIL_HEAD.unpack_from(data)
    readings: list[Reading] = []
    ((_, value, nbytes),), _ = read_values(data, MAIL_HEAD.size, layout_nbytes, find, readings)
    if readings:
        value = value.copy()
        readings[0].release()
    return number, value, nbytes
