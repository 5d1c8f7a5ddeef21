"""Spread independent work over threads, and show how far it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

__all__ = ["Workers", "check_workers", "mapped", "spread"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | Callable[..., Iterable[Any]]


def check_workers(workers: Workers) -> None:
    """Raise unless `workers` is a positive integer or a map-like callable."""
    if callable(workers):
        return
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        message = (
            "`workers` must be an integer or a map-like callable; "
            f"got {type(workers).__name__}."
        )
        raise TypeError(message)
    if workers < 1:
        message = f"`workers` must be at least 1; got {workers}."
        raise ValueError(message)


def spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: Workers = 1,
    progress: bool = False,
    title: str = "",
    together: int = 1,
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, whoever computes it.

    An integer is a number of threads; a callable is used like `map`
    (``pool.map``, or ``client.get_executor().map`` of Dask). Threads run only
    a little ahead of the caller, so that results do not pile up. A callable gets
    so many items `together` as one, since each that a cluster deals out costs
    milliseconds.
    """
    check_workers(workers)
    if callable(workers):
        starts = range(0, len(items), together)
        batches = [items[start : start + together] for start in starts]
        results: Iterable[Result] = chain.from_iterable(
            mapped(workers, partial(_each, function), batches)
        )
    elif workers == 1:
        results = map(function, items)
    else:
        results = _threads(function, items, int(workers))
    if progress:
        from tqdm.auto import tqdm  # noqa: PLC0415

        results = tqdm(results, total=len(items), desc=title)
    yield from results


def mapped(workers: Callable[..., Any], function: Any, batches: Any) -> Any:
    """Return what a callable makes of batches, if it can be called like `map`."""
    try:
        return iter(workers(function, batches))
    except TypeError as error:
        # What went wrong inside of it, or of the function, is no fault of the arguments.
        inside: Any = error.__traceback__
        if inside.tb_next is not None:
            raise
        message = f"`workers` must be called like `map`; got {workers!r}: {error}."
        raise TypeError(message) from error


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _threads(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    workers = min(workers, len(items) or 1)
    with ThreadPoolExecutor(workers) as pool:
        rest = iter(items)
        waiting = [pool.submit(function, item) for item in islice(rest, 2 * workers)]
        while waiting:
            done = waiting.pop(0)
            yield done.result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
