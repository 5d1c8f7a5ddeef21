"""Call every public function with odd arguments, and count what comes back."""

import argparse
import collections
import hashlib
import inspect
import os
import pickle
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings

import numpy as np

from .calls import FOLDER, WRITTEN, Data, functions, valid_call
from .odd import oddities

#: Seconds after which a call is too long, and after which nobody waits for it.
LONG, HOPELESS = 10, 40
#: What a process may have: some requests are for more than there is.
MEMORY = 6 * 2**30
KINDS = (
    "raw error",
    "leaked warning",
    "too long",
    "changed input",
    "taken for a flag",
    "died",
)
#: What an error says: which argument, what it must be, and what came.
NAMED = re.compile(r"`[^`]+`.*\bmust\b.*; got\b.*\.|must .+; got .+", re.DOTALL)


def prints(values):
    """Return a fingerprint of the bytes of all arrays in arguments."""
    found = hashlib.blake2b()

    def add(value):
        if isinstance(value, np.ma.MaskedArray):
            add(value.data)
            add(np.ma.getmaskarray(value))
        elif isinstance(value, np.ndarray):
            found.update(str((value.shape, value.dtype)).encode())
            found.update(
                repr(value.tolist()).encode()
                if value.dtype.hasobject
                else value.tobytes()
            )
        elif isinstance(value, list | tuple):
            found.update(str((type(value), len(value))).encode())
            for each in value:
                add(each)
        elif isinstance(value, dict):
            add(list(value.items()))
        elif hasattr(value, "_array"):
            add(value._array)
        elif isinstance(value, str | int | float):
            found.update(repr(value).encode())

    add(values)
    return found.hexdigest()


def used(answer):
    """Take what an answer promises, and show it."""
    if inspect.isgenerator(answer) or hasattr(answer, "__next__"):
        for _ in answer:
            pass
    elif hasattr(answer, "compute") and hasattr(answer, "dask"):
        if answer.size < 10**6:
            answer.compute(scheduler="sync")
    else:
        repr(answer)


def faults_of(function, arguments):
    """Return the kinds of fault of one call, each with its words."""
    watched = {k: v for k, v in arguments.items() if k not in WRITTEN}
    before, faults = prints(watched), []
    notes = inspect.get_annotations(inspect.unwrap(function))
    bent = [
        name
        for name, value in watched.items()
        if str.__str__(notes.get(name, "")) == "bool"
        and not isinstance(value, bool | np.bool_)
    ]
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            used(function(**arguments))
            faults += [("taken for a flag", name) for name in bent]
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
            own = type(error).__module__.startswith("spectral_tools")
            house = isinstance(error, ValueError | TypeError) and NAMED.search(
                str(error)
            )
            gone = isinstance(error, OSError) and (
                error.filename is not None or "disk is gone" in str(error)
            )
            if not (own or house or gone):
                frame = traceback.extract_tb(error.__traceback__)
                inside = [f for f in frame if "/spectral_tools/" in f.filename][-1:]
                where = "".join(
                    f" @{f.filename.split('/spectral_tools/')[-1]}:{f.lineno}"
                    for f in inside
                )
                faults.append(("raw error", text[:150].replace("\n", " ") + where))
    took = time.perf_counter() - start
    faults += [
        (
            "leaked warning",
            f"{w.category.__name__}: {w.message} @{w.filename[-40:]}:{w.lineno}"[:200],
        )
        for w in given[:1]
        if not w.category.__module__.startswith("spectral_tools")
    ]
    if took > LONG:
        faults.append(("too long", f"{took:.0f} s"))
    if prints(watched) != before:
        faults.append(("changed input", ""))
    return faults


def made_call(number, seed, chosen, data):
    """Return the name of a call, its arguments, and what is odd about them."""
    rng = np.random.default_rng([seed, number])
    name = list(chosen)[rng.integers(len(chosen))]
    function = chosen[name]
    arguments = valid_call(name, function, data, rng)
    # A bar would be shown.
    parameters = [p for p in inspect.signature(function).parameters if p != "progress"]
    words = []
    for _ in range(1 + (rng.random() < 0.3)):
        parameter = parameters[rng.integers(len(parameters))]
        word, arguments[parameter] = oddities(arguments.get(parameter), data, rng)
        words.append(f"{parameter}={word}")
    return name, arguments, ", ".join(words)


def one_call(number, seed, chosen, data):
    """Make one call; return its name, what was odd, and its faults."""
    name, arguments, words = made_call(number, seed, chosen, data)
    faults = faults_of(chosen[name], arguments)
    # What takes long because it is compiled does not when it comes again.
    if any(kind == "too long" for kind, _ in faults):
        again = faults_of(chosen[name], arguments)
        if not any(kind == "too long" for kind, _ in again):
            faults = [each for each in faults if each[0] != "too long"]
    return name, words, faults


def worker(numbers, seed, chosen, data, pipe):
    """Make calls and write of each what was found, before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(FOLDER)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    with os.fdopen(pipe, "wb") as stream:
        for number in numbers:
            found = one_call(number, seed, chosen, data)
            stream.write(pickle.dumps((number, *found)))
            stream.flush()
    os._exit(0)


def run(calls, seed, names=None, first=0):
    """Yield (number, name, oddities, faults) of each call."""
    chosen = {
        name: function
        for name, function in functions().items()
        if not names or name in names
    }
    data = Data()
    at, last = first, first + calls
    while at < last:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                worker(range(at, last), seed, chosen, data, write)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as stream:
            pending = b""
            while at < last:
                ready, _, _ = select.select([stream], [], [], HOPELESS)
                part = stream.read(65536) if ready else b""
                if not part:
                    break
                pending += part
                while pending:
                    try:
                        found = pickle.loads(pending)
                    except (EOFError, pickle.UnpicklingError):
                        break
                    pending = pending[len(pickle.dumps(found)) :]
                    at = found[0] + 1
                    yield found
        if at < last:
            os.kill(child, signal.SIGKILL)
            name, _, words = made_call(at, seed, chosen, data)
            kind = "too long" if not ready else "died"
            yield at, name, words, [(kind, f"after {HOPELESS} s" if not ready else "")]
            at += 1
        os.waitpid(child, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="functions, such as io.read_stos")
    parser.add_argument("--all", action="store_true", help="list every fault")
    asked = parser.parse_args()
    start = time.perf_counter()
    counts, listed = collections.Counter(), collections.Counter()
    for number, name, words, faults in run(
        asked.calls, asked.seed, asked.only, asked.first
    ):
        for kind, text in faults:
            counts[kind] += 1
            listed[kind, name] += 1
            if asked.all:
                say(f"{number}: {kind}: {name}({words}): {text}")
    shutil.rmtree(FOLDER)
    for (kind, name), count in listed.most_common():
        say(f"{kind}: {name}: {count}")
    took = time.perf_counter() - start
    total = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    say(f"{asked.calls} calls of seed {asked.seed} in {took:.0f} s: {total}")
    return int(bool(counts))


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
