"""Networks of tiles: what is said of them beside solving them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from spectral_tools._shared.sparse import bridges, connected_groups

TILES = 9


@given(st.lists(st.tuples(*[st.integers(0, TILES - 1)] * 2), max_size=14))
def test_without_a_bridge_its_tiles_are_apart(links):
    pairs = np.array([p for p in links if p[0] != p[1]], np.intp).reshape(-1, 2)
    expected = []
    for row, (one, other) in enumerate(pairs):
        group = connected_groups(np.delete(pairs, row, axis=0), TILES)
        expected.append(group[one] != group[other])
    assert_array_equal(bridges(pairs, TILES), np.array(expected, bool))
