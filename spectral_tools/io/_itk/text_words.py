"""Read text files word by word, and say where they are wrong."""

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np

__all__ = ["Words", "check_names", "leads_outside", "number_text"]

#: Bytes of the largest text file: a million tiles take a tenth of it.
LARGEST = 1 << 28
#: Characters of a word that are shown when it is wrong.
SHOWN = 40
#: Python would take underscores, NaN and the digits of other scripts too. No
#: number that was printed is longer than the largest one without an exponent.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
LONGEST = 400
COUNT = re.compile(r"[0-9]{1,9}")
# What is in no name and no line of text: a file that holds it is not text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What is in text, but in no name that comes back from a line of UTF-8.
UNWRITTEN = re.compile("[\t\n\ufeff\ud800-\udfff]")
# Where C++ puts its largest number when a point has no place.
NOWHERE = 1.79e308


class Words:
    """The words and lines of a text, which remember where they stand.

    Parameters
    ----------
    text : str
        What to read.
    source : str
        What it is called when it is wrong.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._lines = text.rstrip().split("\n")
        self._next = 0
        self._words: list[str] = []

    @classmethod
    def of_file(cls, path: str | os.PathLike[str], encoding: str = "UTF-8") -> "Words":
        """Read a file, or say why it is no text."""
        source = str(Path(path))
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            message = f"{source} must have at most {LARGEST} bytes; got more."
            raise ValueError(message)
        try:
            # A mark at the beginning is no part of the text.
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            byte = data[error.start]
            message = (
                f"{source}, line {line}, must be {encoding} text; got byte {byte:#x}."
            )
            raise ValueError(message) from error
        except (LookupError, ValueError) as error:
            message = (
                f"`encoding` must be one of Python's for text; got {encoding!r:.40}."
            )
            raise ValueError(message) from error
        words = cls(re.sub("\r\n?", "\n", text), source)
        found = CONTROL.search("\n".join(words._lines))
        if found:
            words._next = line_of(words._lines, found.start())
            words.fail("be text", f"the character {found[0]!r}")
        return words

    def fail(self, requirement: str, got: str) -> NoReturn:
        """Raise an error about the line that was read last."""
        shown = got if len(got) <= SHOWN + 20 else got[: SHOWN + 20] + "..."
        line = max(self._next, 1)
        message = f"{self.source}, line {line}, must {requirement}; got {shown}."
        raise ValueError(message)

    def at_end(self) -> bool:
        """Tell whether only white space is left."""
        while not self._words and self._next < len(self._lines):
            if self._lines[self._next].strip():
                return False
            self._next += 1
        return not self._words

    def line(self, what: str) -> str:
        """Return the rest of this line, or the next one that is not empty."""
        if self.at_end():
            self.fail(f"be followed by {what}", "the end of the file")
        if self._words:
            found, self._words = " ".join(reversed(self._words)), []
            return found
        self._next += 1
        return self._lines[self._next - 1].strip()

    def next_line(self, what: str) -> str:
        """Return the next line, which must not be empty."""
        self._words = []
        self._next += 1
        found = "".join(self._lines[self._next - 1 : self._next]).strip()
        if not found:
            self.fail(f"hold {what}", "nothing")
        return found

    def word(self, what: str) -> str:
        """Return the next word."""
        if self.at_end():
            self.fail(f"be followed by {what}", "the end of the file")
        if not self._words:
            self._next += 1
            self._words = self._lines[self._next - 1].split()[::-1]
        return self._words.pop()

    def expect(self, *known: str) -> str:
        """Return the next word, which must be one of these."""
        word = self.word(known[0])
        if word not in known:
            wanted = " or ".join(map(repr, known))
            self.fail(f"have {wanted} here", short(word))
        return word

    def number(self, what: str) -> float:
        """Return the next word as a finite number."""
        return self.as_number(self.word(what), what)

    def as_number(self, word: str, what: str) -> float:
        """Return a word as a finite number."""
        if len(word) > LONGEST or not NUMBER.fullmatch(word):
            self.fail(f"hold a finite number as {what}", short(word))
        value = float(word)
        if not abs(value) < NOWHERE:
            self.fail(f"hold a finite number as {what}", short(word))
        return value

    def check_name(self, name: str, *, outside: bool) -> None:
        """Raise unless a word or line names a file, in its folder if it has to."""
        if not name:
            self.fail("name a file", "nothing")
        if not outside and leads_outside(name):
            self.fail("name a file in its folder, or `outside` be set", short(name))

    def count(self, what: str) -> int:
        """Return the next word as a whole number of at least 0."""
        return self.as_count(self.word(what), what)

    def as_count(self, word: str, what: str) -> int:
        """Return a word as a whole number of at least 0."""
        if not COUNT.fullmatch(word):
            self.fail(f"hold a whole number below 1e9 as {what}", short(word))
        return int(word)


def short(word: str) -> str:
    """Return a word as it is shown in an error."""
    return repr(word if len(word) <= SHOWN else word[:SHOWN] + "...")


def line_of(lines: list[str], place: int) -> int:
    """Return the number, from 1, of the line in which a character stands."""
    ends = np.cumsum([len(line) + 1 for line in lines])
    return int(np.searchsorted(ends, place, side="right")) + 1


def number_text(value: float) -> str:
    """Return the shortest text that gives the same number back."""
    return repr(float(value))


def check_names(names: list[Any], name: str) -> None:
    """Raise unless each name is one line of text."""
    for each in names:
        if not isinstance(each, str) or each != each.strip() or not each:
            message = f"`{name}` must be strings without space around; got {each!r}."
            raise ValueError(message)
        if CONTROL.search(each) or UNWRITTEN.search(each):
            message = f"`{name}` must be lines of text; got {each!r}."
            raise ValueError(message)


def leads_outside(name: str) -> bool:
    """Tell whether a name may lead out of a folder, on any system."""
    windows = PureWindowsPath(name)
    return (
        ".." in PurePosixPath(name).parts
        or ".." in windows.parts
        or bool(windows.anchor)
        or name.startswith(("/", "~"))
    )
