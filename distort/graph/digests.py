"""Names of contents. ``hashlib`` loads OpenSSL, which takes longer than all that a session has digests made of."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # hashlib's own
except ImportError:
    from hashlib import blake2b

NBYTES = 32


def digest(content: bytes | memoryview) -> bytes:
    """[NBYTES]"""
    return blake2b(content, digest_size=NBYTES).digest()


def name(content: bytes) -> str:
    """A digest as a name of a file."""
    return digest(content).hex()


__all__ = ["NBYTES", "digest", "name"]
