"""Keep results of long computations, but not too many of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

__all__ = ["Bounded"]


class Bounded:
    """The results that were asked for last, each computed by one thread only.

    Copies that are sent elsewhere start empty.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[Lock, list[Any]]] = OrderedDict()

    def __reduce__(self) -> tuple[type["Bounded"], tuple[int]]:
        return Bounded, (self.most,)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result that is kept for a key, or make it."""
        with self._lock:
            busy, result = self._kept.setdefault(key, (Lock(), []))
            self._kept.move_to_end(key)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        with busy:
            if not result:
                result.append(make())
        return result[0]
