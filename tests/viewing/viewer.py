"""The page of a patient as somebody uses it, in Chromium."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

EDGES = {"axial": (2, 1, 1), "coronal": (2, 0, -1), "sagittal": (1, 0, -1)}
"""Of z, y, x: the axis to the right of a plane, the axis down it, and whether that counts up or down."""


class Viewer:
    """A page as somebody uses it; places are millimetres (z, y, x) from the volume's middle."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome
        self.largest_mm = 1.0

    def open(self, page: Path, largest_mm: float) -> None:
        """And wait until all of it is there. largest_mm: the volume's longest side, which fills a plane."""
        self.largest_mm = largest_mm
        self.chrome.get(page.absolute().as_uri())
        self.wait(lambda: self.run("return document.body.dataset.complete !== undefined"))
        self.press("body", "x")  # the crosshair hides pixels

    def run(self, script: str, *arguments: object) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.chrome.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def find(self, css: str) -> WebElement:
        return self.chrome.find_element("css selector", css)

    def press(self, css: str, *keys: str) -> None:
        for key in keys:
            self.find(css).send_keys(key)
        self.settle()

    def values(self) -> dict[str, str]:
        """What the table says."""
        rows = self.run(
            "return [...document.querySelectorAll('#values tr')].map((row) => "
            "[...row.children].map((cell) => cell.textContent))"
        )
        return dict(rows)

    def at(self, plane: str, mm: tuple[float, float, float]) -> tuple[float, float]:
        """Pixels from the middle of a plane's canvas."""
        across, down, sign = EDGES[plane]
        scale = self.find(f"[data-plane={plane}] canvas").size["width"] / self.largest_mm
        return mm[across] * scale, sign * mm[down] * scale

    def pixel(self, plane: str, mm: tuple[float, float, float]) -> list[int]:
        """RGB of a plane at a place."""
        x, y = self.at(plane, mm)
        script = """
            const canvas = document.querySelector(`[data-plane=${arguments[0]}] canvas`);
            const middle = [canvas.width / 2, canvas.height / 2];
            const [x, y] = middle.map((half, i) => Math.floor(half + arguments[1 + i]));
            const one = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            one.drawImage(canvas, -x, -y);
            return [...one.getImageData(0, 0, 1, 1).data.slice(0, 3)]"""
        return list(self.run(script, plane, x, y))

    def drag(
        self, css: str, begin: tuple[float, float], by: tuple[float, float] = (0, 0), right: bool = False
    ) -> None:
        """The pointer from `begin` (pixels from the middle of what it is on) by so much, a button down."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        canvas = self.find(css)
        self.run("arguments[0].scrollIntoView({ block: 'nearest' })", canvas)
        actions = ActionBuilder(self.chrome, duration=0)
        pointer = actions.pointer_action
        pointer.move_to(canvas, round(begin[0]), round(begin[1]))
        pointer.pointer_down(2 if right else 0)
        if any(by):
            pointer.move_by(round(by[0]), round(by[1]))
        pointer.pointer_up(2 if right else 0)
        actions.perform()
        self.settle()

    def click(self, plane: str, mm: tuple[float, float, float]) -> None:
        self.drag(f"[data-plane={plane}] canvas", self.at(plane, mm))

    def wheel(self, plane: str, turned: int) -> None:
        """By pixels: a notch of a mouse is about 100."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        origin = ScrollOrigin.from_element(self.find(f"[data-plane={plane}] canvas"))
        ActionChains(self.chrome, duration=0).scroll_from_origin(origin, 0, turned).perform()
        self.settle()

    def enter(self, css: str, text: str) -> None:
        """Into a field of numbers."""
        self.run(
            "arguments[0].value = arguments[1];"
            "for (const name of ['input', 'change']) arguments[0].dispatchEvent(new Event(name))",
            self.find(css),
            text,
        )
        self.settle()

    def cross(self, css: str) -> tuple[float, float]:
        """Where the crosshair's lines meet on a picture, as shares of its width and height."""
        script = """
            const canvas = document.querySelector(arguments[0]);
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            return [copy.getImageData(0, 1, width, 1), copy.getImageData(1, 0, 1, height)]
              .map((line) => [...line.data])"""
        without = self.run(script, css)
        self.press("body", "x")
        shown = self.run(script, css)
        self.press("body", "x")
        places = []
        for before, after in zip(without, shown, strict=True):
            changed = [
                sum(abs(a - b) for a, b in zip(before[i : i + 4], after[i : i + 4], strict=True))
                for i in range(0, len(before), 4)
            ]
            places.append((sum(i * c for i, c in enumerate(changed)) / sum(changed) + 0.5) / len(changed))
        return places[0], places[1]

    def size(self, width: int, height: int) -> None:
        self.chrome.set_window_size(width, height)
        self.settle()
