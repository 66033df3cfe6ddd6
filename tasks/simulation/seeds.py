"""Random numbers that depend on what they are for, not on the order in which they are drawn."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["rng_for"]


def rng_for(seed: int, *identity: object) -> np.random.Generator:
    """A generator of its own for each identity, such as ``(7, 'frame', 'path.fits')``."""
    digest = hashlib.sha256("\0".join(str(part) for part in identity).encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))
