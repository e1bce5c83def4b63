"""Progress bars for long work, with the time left: on a terminal, on standard error, and only for work of more than a second.

Nothing is drawn where standard error is no terminal, or inside `hidden`. So output that other programs read is never mixed with a bar.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
Update = Callable[[int, int], None]  # (done, total), 0 for an unknown total

DELAY = 1.0  # seconds; shorter work has no bar
INTERVAL = 0.1  # seconds between two drawings

_is_hidden: ContextVar[bool] = ContextVar("_is_hidden", default=False)


@contextmanager
def hidden(is_hidden: bool = True) -> Iterator[None]:
    """Draw no bar inside the block if `is_hidden`."""
    token = _is_hidden.set(is_hidden or _is_hidden.get())
    try:
        yield
    finally:
        _is_hidden.reset(token)


def is_shown() -> bool:
    """Return True if bars are drawn: standard error is a terminal, and no block hides them."""
    return not _is_hidden.get() and sys.stderr is not None and sys.stderr.isatty()


def announce(text: str) -> None:
    """Print a line on standard error where a bar would be drawn if it were a terminal."""
    if not _is_hidden.get() and not is_shown():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(title: str, unit: str = "images") -> Iterator[Update]:
    """Yield a function that draws a bar, to be called with the number of units that are done and of all.

    Args:
        unit: plural noun, or `B` for bytes.
    """
    if not is_shown():
        yield lambda done, total: None
        return
    with _open(title, f" {unit}" if unit != "B" else unit, DELAY) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield update


def track(items: Iterable[T], title: str, total: int = 0, unit: str = "images") -> Iterator[T]:
    """Yield `items` behind a bar that counts them.

    Args:
        total: number of items; 0 if it is unknown. The bar then has a count and no time left.
        unit: as that of `progress_bar`.
    """
    with progress_bar(title, unit) as update:
        for done, item in enumerate(items, start=1):
            yield item
            update(done, total)


@contextmanager
def progress_steps(num_steps: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to be called with the title of each of `num_steps` steps when it begins. A bar shows it at once."""
    if not is_shown():
        yield lambda title: None
        return
    with _open("", " steps", 0) as bar:
        bar.total, bar.n = num_steps, -1

        def begin(title: str) -> None:
            bar.n += 1
            bar.set_description(title)

        yield begin


def _open(title: str, unit: str, delay: float) -> Any:
    """Return a bar of tqdm that disappears when its block ends."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread that watches for slow items
    return tqdm(
        desc=title,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        delay=delay,
        mininterval=INTERVAL,
        miniters=1,
        leave=False,
        dynamic_ncols=True,
        file=sys.stderr,
    )
