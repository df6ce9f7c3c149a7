"""Whether a batch may be split: the batch axis, proved operator by operator to stay apart."""

from .hypotheses import find_batch, guesses
from .proof import Axes, BatchProof, Layout, Refusal, Shapes, prove

__all__ = ["Axes", "BatchProof", "Layout", "Refusal", "Shapes", "find_batch", "guesses", "prove"]
