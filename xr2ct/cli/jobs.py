"""Commands on runs that are, or were, on a cluster: how they are, what they say, ending and going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

COMMANDS: tuple[Callable[[Any], None], ...] = ()
