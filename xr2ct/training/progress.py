"""How far training is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from tqdm import tqdm

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class Progress:
    """Told of every outer step."""

    def __init__(self, done: int, steps: int) -> None:
        self.steps = steps
        # `None` asks tqdm to stay silent unless stderr is a terminal.
        self._bar = tqdm(total=steps, initial=done, unit="step", disable=None)
        self._last_line = 0.0

    def update(self, record: Mapping[str, float]) -> None:
        """Show one object of metrics.jsonl."""
        losses = {k.removeprefix("loss/"): v for k, v in record.items() if k.startswith("loss/")}
        self._bar.update()
        self._bar.set_postfix(losses)
        now = time.monotonic()
        if self._bar.disable and (now - self._last_line >= _LINE_EVERY_S or record["step"] == self.steps):
            self._last_line = now
            told = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            log.info("step %d of %d, %.1f s: %s", record["step"], self.steps, record["seconds"], told)

    def close(self) -> None:
        self._bar.close()
