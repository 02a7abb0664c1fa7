"""Seeds by derivation from names: each use of randomness has its own stream, whatever ran before it."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(root: int, *names: str | int) -> int:
    """A 63-bit seed from a root seed and names, e.g. ``derive_seed(0, "augment", epoch, 7)``."""
    text = "\x1f".join([str(root), *(f"{type(n).__name__}:{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator on the stream of that name."""
    return np.random.Generator(np.random.Philox(derive_seed(root, *names)))
