"""Values that nobody would give on purpose, and other forms of valid ones."""

import datetime as dt
import decimal
import fractions
from pathlib import Path

import numpy as np
from scipy import sparse

import spectral_tools as spt

#: Bare values; what is made anew at each use is made by a function.
ALONE = [
    None,
    True,
    False,
    np.True_,
    "no",
    "",
    "affine",
    b"bytes",
    1j,
    np.nan,
    np.inf,
    -np.inf,
    -1,
    -3,
    -0.5,
    0,
    1,
    2,
    3,
    7,
    0.5,
    1.5,
    2.0,
    2**31,
    10**18,
    10**30,
    1e-300,
    1e155,
    1e300,
    1.79e308,
    np.float16(1),
    np.int8(3),
    np.uint64(2**64 - 1),
    np.float64("nan"),
    np.complex64(1),
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 2),
    np.datetime64("2020-01-01"),
    np.timedelta64(3, "s"),
    dt.timedelta(1),
    object(),
    len,
    int,
    np.float64,
    Ellipsis,
    slice(None),
    slice(0, 2),
    range(3),
    range(0),
    (),
    [],
    {},
    set(),
    {1, 2},
    frozenset("ab"),
    (1,),
    (0, 0),
    (1, 2),
    (2, 3, 4),
    (1, 2, 3, 4),
    [None],
    [[]],
    [[1], [1, 2]],
    [None, None],
    ["a", "b"],
    (1, "a"),
    (np.nan, 1),
    (10**18, 1),
    (2**31, 2**31),
    (-1, -1),
    (0.5, 0.5),
    (1j, 1j),
    (True, False),
    {0: 1},
    {"a": 2, "b": 3},
    b"",
    bytearray(b"ab"),
    memoryview(b"abcd"),
    Path("nowhere"),
    spt.Outcome.MATCHED,
    ValueError("odd"),
]
FRESH = [
    lambda: np.array(2),
    lambda: np.array(2.0),
    lambda: np.array(None),
    lambda: np.array("a"),
    lambda: np.array(True),
    lambda: np.zeros(0),
    lambda: np.zeros((0, 2)),
    lambda: np.zeros((2, 0)),
    lambda: np.zeros((0, 3, 3)),
    lambda: np.zeros(3),
    lambda: np.ones((2, 2)),
    lambda: np.ones((1, 1)),
    lambda: np.ones((3, 3)),
    lambda: np.eye(3),
    lambda: np.eye(4),
    lambda: np.ones((4, 2)),
    lambda: np.ones((5, 5, 5)),
    lambda: np.ones((2, 2, 2, 2)),
    lambda: np.full((4, 2), np.nan),
    lambda: np.full((3, 3), np.inf),
    lambda: np.full((40, 44), np.nan),
    lambda: np.zeros((40, 40)),
    lambda: np.full((40, 44), 1e300),
    lambda: np.full((4, 2), 1e300),
    lambda: np.full((4, 2), 10**18),
    lambda: np.ones((4, 2), bool),
    lambda: np.ones((4, 2), complex),
    lambda: np.array(["a", "b"]),
    lambda: np.array([None, 1]),
    lambda: np.array([[1, None], ["a", 2.0]], object),
    lambda: np.zeros(3, "datetime64[s]"),
    lambda: np.zeros(3, [("a", int), ("b", float)]),
    lambda: np.ma.masked_all((4, 2)),
    lambda: np.ma.masked,
    lambda: iter([1, 2]),
    lambda: (each for each in (1, 2)),
    lambda: iter([]),
    lambda: map(str, (1, 2)),
    lambda: sparse.eye_array(4).tocsr(),
    lambda: np.asmatrix(np.eye(3)),
    lambda: np.random.default_rng(1),
    lambda: Stored(np.ones((3, 12, 12))),
    lambda: Tensor(np.ones((12, 12))),
    lambda: Tensor(np.array(2)),
    lambda: Broken((12, 12)),
]


class Stored:
    """An array that is read only where it is sliced, such as one on a disk."""

    def __init__(self, array):
        self._array = np.asarray(array)
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.ndim, self.size = self._array.ndim, self._array.size

    def __getitem__(self, key):
        return self._array[key]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)


class Labelled(Stored):
    """An array that gives labelled arrays where it is sliced."""

    def __getitem__(self, key):
        return Labelled(self._array[key])

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return map(Labelled, self._array)


class Tensor:
    """A number or numbers of another library."""

    def __init__(self, array):
        self._array = np.asarray(array)
        self.shape, self.dtype = self._array.shape, str(self._array.dtype)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)

    def __len__(self):
        return len(self._array)

    def __getitem__(self, key):
        return Tensor(self._array[key])

    def __iter__(self):
        return map(Tensor, self._array)

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return Tensor(self._array == np.asarray(other))

    def item(self):
        return self._array.item()


class Broken:
    """An image of a file that has gone."""

    def __init__(self, shape):
        self.shape, self.dtype, self.ndim = shape, np.dtype("float64"), len(shape)

    def __getitem__(self, key):
        message = "disk is gone"
        raise OSError(message)

    def __array__(self, dtype=None, copy=None):
        message = "disk is gone"
        raise OSError(message)


def read_only(array):
    array = np.array(array)
    array.setflags(write=False)
    return array


def masked(array):
    array = np.asarray(array)
    mask = np.zeros(array.shape, bool)
    mask.flat[: max(array.size // 9, 1)] = True
    return np.ma.array(array, mask=mask)


def with_value(value):
    """Return how to put a value into an array."""

    def change(array):
        array = np.array(array)
        array = array.astype(np.result_type(array, type(value)))
        array.flat[array.size // 2] = value
        return array

    return change


def stored_by(library):
    """Return how to keep an array as a lazy one of a library."""

    def keep(array):
        if library == "dask":
            import dask.array  # noqa: PLC0415

            return dask.array.from_array(np.asarray(array))
        import zarr  # noqa: PLC0415

        return zarr.array(np.ascontiguousarray(array))

    return keep


def broken_one(value):
    """Return a list in which one image cannot be read."""
    held = list(value)
    held[len(held) // 2] = Broken(np.shape(held[0]))
    return held


def without_one(value):
    held = list(value)
    held[len(held) // 2] = None
    return held


def with_entry(entry):
    """Return how to put something else in the place of one entry of a list."""

    def change(value):
        held = list(value)
        held[len(held) // 2] = entry
        return held

    return change


#: Other forms of a value that is valid.
FORMS = {
    "list": lambda v: np.asarray(v).tolist(),
    "tuple": tuple,
    "float16": lambda v: np.asarray(v, np.float16),
    "big-endian": lambda v: np.asarray(v, ">f8"),
    "integers": lambda v: np.asarray(v).astype(np.int32),
    "bool": lambda v: np.asarray(v).astype(bool),
    "complex": lambda v: np.asarray(v) + 0j,
    "longdouble": lambda v: np.asarray(v, np.longdouble),
    "object": lambda v: np.asarray(v).astype(object),
    "text": lambda v: np.asarray(v).astype(str),
    "read-only": read_only,
    "masked": masked,
    "Fortran": np.asfortranarray,
    "reversed": lambda v: np.asarray(v)[::-1],
    "one more axis": lambda v: np.asarray(v)[..., None],
    "one more axis first": lambda v: np.asarray(v)[None],
    "one axis less": lambda v: np.asarray(v)[0],
    "flat": lambda v: np.asarray(v).ravel(),
    "half": lambda v: v[: len(v) // 2],
    "none of it": lambda v: v[:0],
    "twice": lambda v: np.concatenate([v, v]),
    "with NaN": with_value(np.nan),
    "with inf": with_value(np.inf),
    "with 1e155": with_value(1e155),
    "with 1.79e308": with_value(1.79e308),
    "with -1": with_value(-1),
    "with 2**31": with_value(2**31),
    "with 10**18": with_value(10**18),
    "all NaN": lambda v: np.full(np.shape(v), np.nan),
    "zeros": lambda v: np.zeros(np.shape(v)),
    "huge": lambda v: 1e200 * np.asarray(v, float),
    "tiny": lambda v: 1e-200 * np.asarray(v, float),
    "generator": lambda v: (each for each in v),
    "iterator": iter,
    "dict": lambda v: dict(enumerate(v)),
    "values of a dict": lambda v: dict(enumerate(v)).values(),
    "set": lambda v: set(map(tuple, np.asarray(v).tolist())),
    "objects": lambda v: np.array([*map(str, v)], object),
    "sparse": lambda v: sparse.csr_array(np.asarray(v)),
    "stored": Stored,
    "labelled": Labelled,
    "tensor": Tensor,
    "list of tensors": lambda v: [Tensor(each) for each in v],
    "list of labelled": lambda v: [Labelled(each) for each in v],
    "list of stored": lambda v: [Stored(each) for each in v],
    "zarr": stored_by("zarr"),
    "dask": stored_by("dask"),
    "memoryview": lambda v: memoryview(np.ascontiguousarray(v)),
    "matrix": np.asmatrix,
    "broken one": broken_one,
    "without one": without_one,
    "with a text": with_entry("a"),
    "with a number": with_entry(3),
    "with a complex number": with_entry(1j),
    "with True": with_entry(True),
    "with an empty list": with_entry([]),
    "with an empty array": with_entry(np.zeros((0, 0))),
    "with a small array": with_entry(np.ones((1, 1))),
    "with a flat array": with_entry(np.ones(3)),
    "with a volume": with_entry(np.ones((2, 5, 5))),
    "with texts": with_entry(np.array([["a", "b"], ["c", "d"]])),
    "with a slice": with_entry(slice(None)),
    "with a dict": with_entry({"a": 1}),
    "with a generator": with_entry(iter([1, 2])),
    "with objects": with_entry(np.array([[None, 1], [2, 3]])),
    "with zeros": lambda v: with_entry(np.zeros(np.shape(v[0])))(v),
    "with NaN only": lambda v: with_entry(np.full(np.shape(v[0]), np.nan))(v),
    "transposed": lambda v: np.asarray(v).T,
    "every second": lambda v: np.asarray(v)[::2],
    "of one value": lambda v: np.full(np.shape(v), 3.0),
    "uint8": lambda v: np.asarray(v).astype(np.uint8),
    "float32": lambda v: np.asarray(v, np.float32),
    "float32 huge": lambda v: np.asarray(v, np.float32) * np.float32(1e30),
    "int64 huge": lambda v: np.asarray(v).astype(np.int64) * 10**15,
    "float16 huge": lambda v: np.full(np.shape(v), 65504, np.float16),
    "times 1e20": lambda v: np.asarray(v, float) * 1e20,
    "times 1e60": lambda v: np.asarray(v, float) * 1e60,
    "times 1e120": lambda v: np.asarray(v, float) * 1e120,
    "times 1e-30": lambda v: np.asarray(v, float) * 1e-30,
    "alternating": lambda v: np.arange(np.size(v)).reshape(np.shape(v)) % 2.0,
    "with inf and -inf": lambda v: with_value(-np.inf)(with_value(np.inf)(v)),
    "0-d": lambda v: np.array(v, object)[()],
    "boxed": lambda v: [v],
    "pair": lambda v: (v, v),
    "in a dict": lambda v: {"a": v},
    "as text": str,
    "as bytes": lambda v: str(v).encode(),
    "negative": lambda v: -np.asarray(v),
    "number as float": float,
    "number as array": np.array,
    "number as object": lambda v: np.array([v], object),
}


def oddities(value, data, rng):
    """Return (description, value) of something else than `value`."""
    results = [data.placement, data.estimate, data.shading, data.rigid, data.mesh]
    if value is not None and rng.random() < 0.5:
        for _ in range(5):
            word = list(FORMS)[rng.integers(len(FORMS))]
            try:
                return word, FORMS[word](value)
            except Exception:  # noqa: BLE001, S112
                continue
    number = rng.integers(len(ALONE) + len(FRESH) + len(results))
    if number < len(ALONE):
        odd = ALONE[number]
        return repr(odd)[:40], odd
    number -= len(ALONE)
    if number < len(FRESH):
        odd = FRESH[number]()
        return f"{type(odd).__name__} {number}", odd
    odd = results[number - len(FRESH)]
    return type(odd).__name__, odd
