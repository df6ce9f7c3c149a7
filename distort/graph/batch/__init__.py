"""Whether a batch may be split: the batch axis, proved operator by operator to stay apart."""

from .hypotheses import find_batch
from .proof import BatchProof, Layout, Refusal, prove

__all__ = ["BatchProof", "Layout", "Refusal", "find_batch", "prove"]
