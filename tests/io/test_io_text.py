"""Files of text: transforms, sections, mosaics and positions of tiles."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import spectral_tools as spt

tifffile = pytest.importorskip("tifffile")

RIGID = "Rigid2DTransform_double_2_2 vp 3 0.25 5.0 -7.5 fp 2 64.0 32.0"
MESH = (
    "MeshTransform_double_2_2 vp 8 0.5 0.25 70.0 20.0 1.0 0.0 120.0 -3.5 "
    "fp 8 0.0 16.0 16.0 -1.0 2.0 100.0 40.0 2.0"
)
GRID = (
    "GridTransform_double_2_2 vp 12 0.0 0.0 52.0 1.0 99.0 2.0 1.0 41.0 50.0 40.5 "
    "101.0 42.0 fp 7 0.0 1.0 2.0 0.0 0.0 100.0 40.0"
)
POLYNOMIAL = (
    "LegendrePolynomialTransform_double_2_2_2 vp 12 1.0 0.02 1.1 0.0 0.03 -0.05 "
    "1.0 0.9 -0.04 0.06 0.0 0.01 fp 4 64.0 32.0 60.0 30.0"
)
TEXTS = {
    "rigid": RIGID,
    "mesh": MESH,
    "grid": GRID,
    "polynomial": POLYNOMIAL,
    "similarity": "CenteredSimilarity2DTransform_double_2_2 vp 6 1.25 0.25 64.0 32.0 "
    "5.0 -7.5 fp 0",
    "affine": "FixedCenterOfRotationAffineTransform_double_2_2 vp 8 1.0 0.1 -0.2 0.9 "
    "5.0 -7.5 5.26637e-67 3e-322 fp 2 122.0 61.0",
    "translation": "LegendrePolynomialTransform_double_2_2_1 vp 6 1.0 0.0 1.0 1.0 1.0 "
    "0.0 fp 4 300.0 50.0 64.0 32.0",
}
MATRICES = ("rigid", "similarity", "affine", "translation")

finite = st.floats(-1e6, 1e6)
transforms = pytest.mark.parametrize("kind", TEXTS)


def parsed(kind):
    return spt.io.parse_itk(TEXTS[kind])


def same(transform, other):
    """Tell whether two transforms are the same to the last bit."""
    return transform.name == other.name and all(
        np.array_equal(getattr(transform, name), getattr(other, name))
        for name in ("parameters", "fixed_parameters")
    )


# Transforms


@transforms
def test_a_transform_comes_back_to_the_last_bit(kind):
    transform = parsed(kind)
    assert same(spt.io.parse_itk(spt.io.format_itk(transform)), transform)


@given(numbers=arrays(np.float64, 8, elements=st.floats(-1e300, 1e300)))
def test_any_number_comes_back_to_the_last_bit(numbers):
    name = TEXTS["affine"].split()[0]
    text = spt.io.format_itk(
        spt.io.ITKTransform(name=name, parameters=numbers, fixed_parameters=numbers[:2])
    )
    again = spt.io.parse_itk(text)
    assert again.parameters.tobytes() == numbers.tobytes()
    assert spt.io.format_itk(again) == text


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        # As SimpleITK 2.5 maps the point (x, y) = (10, 20).
        ("rigid", (19.6475767387, -0.4867628603)),
        ("similarity", (7.3094709233, -6.7334535753)),
        ("affine", (10.9, 39.0)),
        ("translation", (-226.0, 2.0)),
    ],
)
def test_matrices_map_as_itk_does(kind, truth):
    mapped = spt.io.map_itk(parsed(kind), [(20, 10)])
    # The truth was printed with ten digits.
    assert_allclose(mapped, [truth[::-1]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_matrix_leads_from_moving_to_reference(kind, rng):
    transform = parsed(kind)
    reference = rng.uniform(-100, 100, (20, 2))
    moving = spt.io.map_itk(transform, reference)
    back = spt.apply_transform(spt.io.itk_matrix(transform), moving)
    # Rounding of numbers up to a few hundred.
    assert_allclose(back, reference, rtol=0, atol=1e-11)


def test_forward_transforms_are_not_inverted():
    matrix = spt.io.itk_matrix(parsed("rigid"), forward=True)
    other = spt.io.itk_matrix(parsed("rigid"))
    assert_allclose(matrix @ other, np.eye(3), rtol=0, atol=1e-12)
    # A tile of nornir lies where its transform shifts it.
    text = "Rigid2DTransform_double_2_2 vp 3 0 6.81227 3637.45 fp 2 0 0"
    placed = spt.io.itk_matrix(spt.io.parse_itk(text), forward=True)
    assert_array_equal(placed, spt.translation((3637.45, 6.81227)))


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_a_matrix_comes_back_with_its_centre(kind, forward):
    matrix = spt.translation((5, -90.25)) @ spt.rotation(0.3, center=(20, 70))
    if kind != "rigid":
        matrix[:2, :2] *= 1.1
    if kind == "affine":
        matrix[0, 1] += 0.1
    transform = spt.io.matrix_to_itk(
        matrix, kind=kind, center=(31, 63), forward=forward
    )
    centre = transform.fixed_parameters
    if kind == "similarity":
        centre = transform.parameters[2:4]
    assert_array_equal(centre, (63, 31))
    again = spt.io.itk_matrix(transform, forward=forward)
    assert_allclose(again, matrix, rtol=0, atol=1e-12)


def test_a_mirrored_matrix_is_no_similarity():
    matrix = np.diag([-1.0, 1, 1])
    for kind in ("rigid", "similarity"):
        with pytest.raises(ValueError, match=f"`matrix` must be a {kind} one; got"):
            spt.io.matrix_to_itk(matrix, kind=kind)
    transform = spt.io.matrix_to_itk(matrix)
    assert_array_equal(spt.io.itk_matrix(transform), matrix)


def legendre(degree, value):
    """Return a Legendre polynomial by its recurrence."""
    before, now = 0.0, 1.0
    for n in range(degree):
        before, now = now, ((2 * n + 1) * value * now - n * before) / (n + 1)
    return now


def test_polynomials_are_sums_of_products(rng):
    transform = parsed("polynomial")
    terms = transform.parameters.reshape(2, 6)
    for row, col in rng.uniform(0, 120, (10, 2)):
        across, down = (col - 64) / 60, (row - 32) / 30
        truth = np.zeros(2)
        for total in range(3):
            for j in range(total + 1):
                number = j + total * (total + 1) // 2
                term = legendre(j, across) * legendre(total - j, down)
                truth += terms[:, number] * term
        [found] = spt.io.map_itk(transform, [(row, col)])
        # Rounding of sums of a few terms below 200.
        assert_allclose(found, (30 * truth[1], 60 * truth[0]), rtol=0, atol=1e-11)


def test_polynomials_of_higher_degree_are_no_matrices():
    with pytest.raises(ValueError, match="must be a polynomial of degree 1; got 2"):
        spt.io.itk_matrix(parsed("polynomial"))


def test_meshes_hold_pairs_of_points():
    points = spt.io.itk_points(parsed("mesh"))
    assert_array_equal(points.moving_points, [(12, 49), (2, 99)])
    assert_array_equal(points.reference_points, [(20, 70), (-3.5, 120)])


def test_grids_hold_points_from_corner_to_corner():
    points = spt.io.itk_points(parsed("grid"))
    rows, cols = np.meshgrid([0, 40], [0, 50, 100], indexing="ij")
    assert_array_equal(points.moving_points, np.stack([rows, cols], axis=-1))
    assert_array_equal(points.reference_points[1, 2], (42, 101))


def test_a_mesh_that_was_turned_round_swaps_its_images():
    turned = spt.io.parse_itk(MESH.replace("fp 8 0.0", "fp 8 1.0"))
    points, plain = spt.io.itk_points(turned), spt.io.itk_points(parsed("mesh"))
    assert_array_equal(points.moving_points, plain.reference_points)
    assert_array_equal(points.reference_points, plain.moving_points)


def test_points_and_grids_come_back(rng):
    reference, moving = rng.uniform(0, 512, (2, 30, 2))
    mesh = spt.io.points_to_itk(reference, moving, (512, 1024))
    again = spt.io.itk_points(spt.io.parse_itk(spt.io.format_itk(mesh)))
    # Sides that are powers of 2 cost nothing.
    assert_array_equal(again.reference_points, reference)
    assert_array_equal(again.moving_points, moving)
    grid = spt.io.grid_to_itk(reference.reshape(5, 6, 2), (400, 300))
    again = spt.io.itk_points(spt.io.parse_itk(spt.io.format_itk(grid)))
    assert_array_equal(again.reference_points, reference.reshape(5, 6, 2))
    assert_array_equal(again.moving_points[-1, -1], (400, 300))


def test_both_spellings_of_the_type_are_read():
    twice = RIGID.replace("_double_", "_double_double_")
    transform = spt.io.parse_itk(twice)
    assert spt.io.format_itk(transform) == twice
    assert_array_equal(spt.io.itk_matrix(transform), spt.io.itk_matrix(parsed("rigid")))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "`text`, line 1, must be followed by a transform; got the end"),
        ("NoTransform_double_2_2 vp 0 fp 0", "must name a transform such as"),
        (RIGID + " 7", "must end with the transform; got more"),
        (RIGID[:-5], "must be followed by a fixed parameter; got the end"),
        (RIGID.replace("5.0", "nan"), "must hold a finite number as a param.*'nan'"),
        (RIGID.replace("5.0", "1_0"), "must hold a finite number as a param.*'1_0'"),
        (RIGID.replace("5.0", "1.7976931348623157e+308"), "must hold a finite number"),
        (RIGID.replace("vp 3", "vp 3000000000"), "must hold a whole number below 1e9"),
        (RIGID.replace("vp 3", "vp 99"), "must hold a finite number .* got 'fp'"),
        (RIGID.replace("vp 3 0.25", "vp 2"), "must hold 3 parameters and 2 fixed"),
        (MESH.replace("2.0 100.0 40.0 2.0", "2.0 100.0 40.0 5.0"), "must hold 20 par"),
        (MESH.replace("100.0 40.0 2.0", "-100.0 40.0 2.0"), "must hold the fixed par"),
        (GRID.replace("1.0 2.0 0.0", "9e8 9e8 0.0"), "must hold 1620000003600000002 "),
        (GRID.replace("1.0 2.0 0.0", "0.0 5.0 0.0"), "must hold the fixed parameters"),
        (POLYNOMIAL.replace("60.0 30.0", "0 30.0"), "must hold the fixed parameters"),
        (POLYNOMIAL.replace("_2_2_2", "_2_2_999"), "must name a transform such as"),
    ],
)
def test_broken_transforms_are_named(text, match):
    with pytest.raises(ValueError, match=match):
        spt.io.parse_itk(text)


@pytest.mark.parametrize(
    ("function", "kind", "match"),
    [
        (spt.io.itk_matrix, "mesh", "`transform` must be a matrix; got MeshTransform"),
        (spt.io.itk_points, "rigid", "`transform` must be a mesh or a grid; got Rigid"),
        (lambda t: spt.io.map_itk(t, [(0, 0)]), "grid", "must be a matrix; got Grid"),
    ],
)
def test_transforms_of_the_wrong_kind_are_named(function, kind, match):
    with pytest.raises(ValueError, match=match):
        function(parsed(kind))


def test_transforms_without_inverse_are_named():
    text = TEXTS["similarity"].replace("vp 6 1.25", "vp 6 0.0")
    with pytest.raises(ValueError, match="`transform` must have an inverse; got"):
        spt.io.itk_matrix(spt.io.parse_itk(text))


# Sections


@transforms
@pytest.mark.parametrize("masks", [("", ""), ("../a b.png", "C:\\m.png")])
def test_a_section_comes_back(kind, masks, tmp_path):
    path = tmp_path / "2-1.stos"
    options = {"spacings": [(2, 0.1), (3, 1 / 3)], "flipped": (False, True)}
    images = ("../1/a b.png", "2.png")
    spt.io.write_stos(
        path, parsed(kind), images, [(60, 80), (61, 83)], masks=masks, **options
    )
    found = spt.io.read_stos(path)
    assert same(found.transform, parsed(kind))
    assert (found.reference_image, found.moving_image) == images
    assert (found.reference_mask, found.moving_mask) == masks
    assert (found.reference_shape, found.moving_shape) == ((60, 80), (61, 83))
    assert (found.reference_flipped, found.moving_flipped) == (False, True)
    assert_array_equal(found.reference_spacing, (2, 0.1))
    assert_array_equal(found.moving_spacing, (3, 1 / 3))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_sections_of_other_programs_are_read(newline, tmp_path):
    path = tmp_path / "690-691.stos"
    lines = [
        "../0691/images/a.png", "../0690/images/b.png", "0", "0",
        "1.000000000000e+00\t1\t484\t482", "1 1 484 482",
        "Rigid2DTransform_double_2_2 vp 3  0.015182234046702388",
        "   26.324905395507812 -129.3226318359375 fp 2 241.5 240.5",
        "two_user_supplied_masks:", "a mask.png", "b mask.png", "",
    ]  # fmt: skip
    path.write_bytes(newline.join(lines).encode())
    found = spt.io.read_stos(path)
    assert found.reference_shape == (482, 484)
    assert found.moving_mask == "b mask.png"
    assert_array_equal(found.transform.fixed_parameters, (241.5, 240.5))
    center = np.array([240.5, 241.5])
    matrix = spt.io.itk_matrix(found.transform, forward=True)
    moved = spt.apply_transform(matrix, center[np.newaxis])[0] - center
    # Rounding of numbers of a few hundred.
    assert_allclose(moved, (-129.3226318359375, 26.324905395507812), atol=1e-12)


STOS = f"1.png\n2.png\n0\n0\n1 1 80 60\n1 1 83 61\n{RIGID}\n"


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("2.png", "", "line 2, must hold the file of an image; got nothing"),
        ("1 1 80 60", "1 1 80.5 60", "line 5, must hold two sides of an image"),
        ("1 1 80 60", "1 0 80 60", "line 5, must hold spacings of pixels greater"),
        (RIGID, RIGID[:20], "line 7, must name a transform such as"),
        (RIGID, RIGID + "\nmasks", "line 8, must have 'two_user_supplied_masks:'"),
        (
            RIGID,
            RIGID + "\ntwo_user_supplied_masks:\na",
            "line 10, must hold the file of a mask",
        ),
        ("2.png", "2\0.png", r"line 2, must be text; got the character '\\x00'"),
    ],
)
def test_broken_sections_are_named(before, after, match, tmp_path):
    path = tmp_path / "2-1.stos"
    path.write_text(STOS.replace(before, after, 1))
    with pytest.raises(ValueError, match=f"2-1.stos, {match}"):
        spt.io.read_stos(path)


# Mosaics


def test_a_mosaic_comes_back(tmp_path):
    path = tmp_path / "1.mosaic"
    names = [f"tile {k}.png" for k in range(len(TEXTS))]
    transforms = [parsed(kind) for kind in TEXTS]
    spt.io.write_mosaic(path, names, transforms, pixel_spacing=0.1, standard_mask=True)
    found = spt.io.read_mosaic(path)
    assert found.names == names
    assert (found.pixel_spacing, found.standard_mask) == (0.1, True)
    assert all(map(same, found.transforms, transforms))


def test_old_mosaics_have_names_and_transforms_on_one_line(tmp_path):
    path = tmp_path / "1.mosaic"
    path.write_text(
        f"number_of_images: 2\npixel_spacing: 1\nuse_std_mask: 0\n"
        f"image: my 1.png {RIGID}\nimage: 2.png {MESH}\n"
    )
    found = spt.io.read_mosaic(path)
    assert found.names == ["my 1.png", "2.png"]
    assert same(found.transforms[1], parsed("mesh"))


def test_placements_come_back_from_a_mosaic(rng, tmp_path):
    shifts = rng.uniform(0, 1000, (6, 2))
    names = [f"{k}.png" for k in range(6)]
    matrices = [spt.translation(shift) for shift in shifts]
    transforms = [spt.io.matrix_to_itk(each, kind="rigid") for each in matrices]
    spt.io.write_mosaic(tmp_path / "1.mosaic", names, transforms)
    found = spt.io.read_mosaic(tmp_path / "1.mosaic")
    again = [spt.io.itk_matrix(each) for each in found.transforms]
    assert_array_equal(again, matrices)


HEAD = "format_version_number: 1\nnumber_of_images: 1\npixel_spacing: 1\n"
MOSAIC = f"{HEAD}use_std_mask: 0\nimage:\n1.png\n{RIGID}\n"


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("images: 1", "images: 999999999", "must hold 999999999 images; got 1"),
        ("spacing: 1", "spacing: 0", "must hold at least one image, and a spacing"),
        ("use_std", "no_std", "line 4, must have 'image:' or .* got 'no_std_mask:'"),
        ("use_std_mask", "pixel_spacing", "line 4, must begin with one number of each"),
        ("1.png", "/etc/passwd", "line 6, must name a file in its folder, .*passwd"),
        ("1.png", "..\\..\\a.png", "line 6, must name a file in its folder, "),
        (RIGID, "", "line 6, must be followed by a transform; got the end"),
        (RIGID, MESH[:40], "line 7, must be followed by a parameter; got the end"),
    ],
)
def test_broken_mosaics_are_named(before, after, match, tmp_path):
    path = tmp_path / "1.mosaic"
    path.write_text(MOSAIC.replace(before, after, 1))
    with pytest.raises(ValueError, match=f"1.mosaic, .*{match}"):
        spt.io.read_mosaic(path)


def test_quotes_around_a_name_are_no_part_of_it(tmp_path):
    path = tmp_path / "1.mosaic"
    path.write_text(MOSAIC.replace("1.png", '"my 1.png"'))
    assert spt.io.read_mosaic(path).names == ["my 1.png"]


def test_names_may_lead_outside_if_that_is_allowed(tmp_path):
    path = tmp_path / "1.mosaic"
    path.write_text(MOSAIC.replace("1.png", "../tiles/1.png"))
    assert spt.io.read_mosaic(path, outside=True).names == ["../tiles/1.png"]


# Positions of tiles


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("several", [False, True])
def test_positions_come_back(ndim, several, rng, tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    positions = rng.normal(scale=1e4, size=(5, ndim))
    names = ["all.czi"] * 5 if several else [f"a b/{k}.tif" for k in range(5)]
    series = [0, 1, 2, 3, 7] if several else None
    spt.io.write_tile_configuration(path, names, positions, series=series)
    found = spt.io.read_tile_configuration(path)
    assert found.names == names
    assert found.series == (series or [])
    assert_array_equal(found.positions, positions)


@pytest.mark.parametrize(
    "text",
    [
        "dim = 2\n# Define the image coordinates\na.tif; ; (921.5, -3.0)\n",
        "\ufeff# Define the number of dimensions\r\ndim=2\r\n\r\na.tif;;(921.5,-3)",
        "dim =2\n  a.tif ;1; ( 9.215e2 , -3. )\n#b.tif; ; (1, 2)",
        "dims = 2 # rows\na.tif; ; (921.5, -3.0)  # by hand; (1, 2)",
    ],
)
def test_every_spelling_is_read(text, tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_text(text, encoding="utf-8", newline="")
    found = spt.io.read_tile_configuration(path)
    assert (found.names, found.series) == (["a.tif"], [])
    assert_array_equal(found.positions, [(-3, 921.5)])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "line 1, must hold at least one tile; got none"),
        ("a.tif; ; (1, 2)", "line 1, must follow a line such as 'dim = 2'"),
        ("dim = 4", "line 1, must hold 2 or 3 as the number of dimensions; got 4"),
        ("dim = 2\na; ; (1, 2)\ndim = 2", "line 3, must come before the first tile"),
        ("dim = 2\na; ; (1, 2, 3)", r"line 2, must hold 2 coordinates; got '\(1, 2, 3"),
        ("dim = 3\na; ; (1, 2)", r"line 2, must hold 3 coordinates; got '\(1, 2\)'"),
        ("dim = 2\na; (1, 2)", "line 2, must be like 'name; ; "),
        ("dim = 2\na; ; (1, 2", "line 2, must be like 'name; ; "),
        ("dim = 2\na; ; (NaN, 2)", "line 2, must hold a finite number as a coord"),
        ("dim = 2\n\na; ; (1e999, 2)", "line 3, must hold a finite number as a coord"),
        ("dim = 2\n; ; (1, 2)", "line 2, must name a file; got nothing"),
        ("dim = 2\n../a; ; (1, 2)", "line 2, must name a file in its folder, .*a"),
        ("dim = 2\nmultiseries = true\na; ; (1, 2)", "line 3, must hold a whole numb"),
    ],
)
def test_broken_positions_are_named(text, match, tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"TileConfiguration.txt, {match}"):
        spt.io.read_tile_configuration(path)


def test_a_file_that_is_named_twice_holds_several(tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_text("dims = 3\nimg.czi; 3; (4, 5, 6)\nimg.czi; 0; (1, 2, 3)\n")
    found = spt.io.read_tile_configuration(path)
    assert (found.names, found.series) == (["img.czi"] * 2, [3, 0])
    assert_array_equal(found.positions, [(6, 5, 4), (3, 2, 1)])


def test_names_with_signs_of_comments_are_names(tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_text("dim = 2\nwell (1) #3.tif; ; (1, 2) # third\n")
    assert spt.io.read_tile_configuration(path).names == ["well (1) #3.tif"]


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "UTF-16"])
def test_text_in_an_encoding_that_is_named_is_read(encoding, tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    name = "\u6837\u54c1.tif" if encoding == "gbk" else "\xb5m_\xe9.tif"
    path.write_bytes(f"dim = 2\n{name}; ; (1, 2)".encode(encoding))
    assert spt.io.read_tile_configuration(path, encoding=encoding).names == [name]


@pytest.mark.parametrize("encoding", ["no such one", "hex", "a\0b"])
def test_encodings_must_be_known(encoding, tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_text("dim = 2\na; ; (1, 2)")
    with pytest.raises(ValueError, match="`encoding` must be one of Python's for text"):
        spt.io.read_tile_configuration(path, encoding=encoding)


def test_text_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "TileConfiguration.txt"
    path.write_bytes(b"dim = 2\n\xb5.tif; ; (1, 2)")
    with pytest.raises(ValueError, match="line 2, must be UTF-8 text; got byte 0xb5"):
        spt.io.read_tile_configuration(path)


@pytest.mark.real
def test_positions_of_a_real_acquisition():
    folder = os.environ.get("SPECTRAL_TOOLS_DATA")
    path = Path(folder or "", "tiles/lscm_speckle_3x4/raw/TileConfiguration.txt")
    if not path.is_file():
        pytest.skip("SPECTRAL_TOOLS_DATA names no folder of real data")
    found = spt.io.read_tile_configuration(path)
    truth = spt.grid_positions((3, 4), (921, 921), overlap=0)
    assert_array_equal(found.positions, truth)
    pattern = "x100_epr-jerem_10pct_001_A{index:03d}_I.png"
    tiles = spt.io.tile_folder(path.parent, pattern)
    assert tiles.keys == list(range(1, 13))
    assert {tile.shape for tile in tiles.tiles} == {(1024, 1024)}


# Writing

WRITERS = {
    "stos": lambda path: spt.io.write_stos(
        path, parsed("rigid"), ("1.png", "2.png"), [(60, 80)] * 2
    ),
    "mosaic": lambda path: spt.io.write_mosaic(path, ["1.png"], [parsed("rigid")]),
    "positions": lambda path: spt.io.write_tile_configuration(path, ["a"], [(1, 2)]),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_interrupted_write_leaves_the_old_file(kind, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fails(*_):
        message = "no space"
        raise OSError(message)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fails)
        with pytest.raises(OSError, match="no space"):
            WRITERS[kind](path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[kind](path)
    assert path.read_text() != "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda p: spt.io.write_mosaic(p, ["a\nb"], [parsed("rigid")]),
            "`names` must be lines of text; got 'a",
        ),
        (
            lambda p: spt.io.write_mosaic(p, ["a\udc80"], [parsed("rigid")]),
            "`names` must be lines of text; got 'a",
        ),
        (
            lambda p: spt.io.write_mosaic(p, ['"a"'], [parsed("rigid")]),
            "`names` must be without quotes around them; got",
        ),
        (
            lambda p: spt.io.write_mosaic(p, [], []),
            "`transforms` must be one for each of at least one of `names`; got 0",
        ),
        (
            lambda p: spt.io.write_tile_configuration(p, ["a;b"], [(1, 2)]),
            "`names` must be without semicolons and leading #; got",
        ),
        (
            lambda p: spt.io.write_tile_configuration(p, ["a"], [(1, 2), (3, 4)]),
            "must be equally many, and at least one; got 1, 2 and 1",
        ),
        (
            lambda p: spt.io.write_tile_configuration(p, ["a"], [(1, np.nan)]),
            "`positions` must be finite; got 1 NaN",
        ),
        (
            lambda p: spt.io.write_stos(
                p, parsed("rigid"), ("1", "2"), [(6, 8)] * 2, masks=("a", "")
            ),
            "`images` and `masks` must be pairs; got",
        ),
        (
            lambda p: spt.io.write_stos(p, parsed("rigid"), ("1", "2"), [(6, 0)] * 2),
            "`shapes` must be two pairs of numbers above 0; got",
        ),
    ],
)
def test_what_cannot_be_read_back_is_not_written(call, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        call(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


# Folders


def folder_of(names, folder, image):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("png"):
            Image.fromarray(image).save(folder / name)
        else:
            tifffile.imwrite(folder / name, image, photometric="minisblack")


@pytest.mark.parametrize(
    ("pattern", "names", "keys"),
    [
        (
            "t_{row}_{col}.png",
            ["t_0_10.png", "t_0_2.png", "t_1_0.png", "t_1_0.tif", "u_1_0.png"],
            [(0, 2), (0, 10), (1, 0)],
        ),
        (
            "t_c{col:03d}r{row:03d}.tif",
            ["t_c001r000.tif", "t_c000r002.tif", "t_c1000r000.tif", "t_c01r001.tif"],
            [(0, 1), (0, 1000), (2, 0)],
        ),
        ("{index:02}.tiff", ["10.tiff", "02.tiff", "7.tiff"], [2, 10]),
        (
            "*_{index}_?.png",
            ["a_10_x.png", "b_9_y.png", "_3_z.png", "a_1.png"],
            [3, 9, 10],
        ),
        (
            "*/a_{row}_{col}.tif",
            ["s/a_0_1.tif", "t/a_0_0.tif", "a_7_7.tif"],
            [(0, 0), (0, 1)],
        ),
        (
            "{row}/c{col}/*.png",
            ["0/c3/a.png", "0/c20/b.png", "1/c0/c.png", "1/d0/c.png", "1/c0/.d.png"],
            [(0, 3), (0, 20), (1, 0)],
        ),
        (
            "z{plane}({row},{col}).png",
            ["z1(0,0).png", "z0(5,5).png"],
            [(0, 5, 5), (1, 0, 0)],
        ),
    ],
)
def test_tiles_are_sorted_by_their_keys(pattern, names, keys, tmp_path):
    folder_of(names, tmp_path, np.arange(12, dtype=np.uint16).reshape(3, 4))
    found = spt.io.tile_folder(tmp_path, pattern)
    assert found.keys == keys
    assert [tile.path for tile in found.tiles] == found.paths
    assert len(set(found.paths)) == len(keys)


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "options"),
    [
        ("1.png", "u1", (), {}),
        ("1.png", "u2", (), {}),
        ("1.png", "u1", (3,), {}),
        ("1.png", "u1", (4,), {}),
        ("1.tif", "u2", (), {}),
        ("1.tif", ">u2", (), {"byteorder": ">"}),
        ("1.tif", "f4", (), {"compression": "zlib"}),
        ("1.tif", "u1", (3,), {"photometric": "rgb"}),
        ("1.tif", "f4", (5,), {}),
        ("1.tif", "u2", (), {"tile": (16, 16)}),
    ],
)
def test_images_are_read_when_they_are_sliced(
    name, dtype, channels, options, rng, tmp_path
):
    image = rng.integers(0, 2, (40, 35, *channels)).astype(dtype)
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, image, **options)
    else:
        folder_of([name], tmp_path, image)
    ending = name[1:]
    [tile] = spt.io.tile_folder(tmp_path, f"{{index}}{ending}").tiles
    assert (tile.shape, tile.ndim) == (image.shape, image.ndim)
    whole = np.asarray(tile)
    assert whole.dtype == tile.dtype
    assert_array_equal(whole.astype(bool), image.astype(bool))
    assert_array_equal(tile[3:9, 5], whole[3:9, 5])
    assert not isinstance(tile[3:9], np.memmap)


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("1", (), "bool"), ("P", (3,), "u1"), ("LA", (2,), "u1"), ("I;16", (), "u2")],
)
def test_images_of_every_mode_are_as_their_heads_tell(mode, channels, dtype, tmp_path):
    Image.new(mode, (7, 5)).save(tmp_path / "0.png")
    [tile] = spt.io.tile_folder(tmp_path, "{index}.png").tiles
    assert (tile.shape, tile.dtype) == ((5, 7, *channels), np.dtype(dtype))
    assert not np.asarray(tile).any()


def test_images_that_number_their_colours_become_colours(tmp_path):
    image = Image.new("P", (7, 5))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((3, 2), 1)
    image.save(tmp_path / "0.png")
    [tile] = spt.io.tile_folder(tmp_path, "{index}.png").tiles
    assert_array_equal(tile[2, 2:4], [(0, 0, 0), (10, 20, 30)])


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="cannot count files")
def test_no_file_stays_open(tmp_path):
    folder_of(["1.tif", "2.tif"], tmp_path, np.zeros((9, 9), np.uint8))
    before = open_files()
    found = spt.io.tile_folder(tmp_path, "{index}.tif")
    parts = [tile[2:5] for tile in found.tiles]
    assert open_files() == before
    assert len(parts) == 2


def test_folders_of_tiles_can_be_placed(tmp_path):
    made = spt.simulate_tiles(spt.gaussian_texture((200, 200), rng=0), (2, 2), (96, 96))
    for (row, col), tile in zip(made.grid, made.tiles, strict=True):
        tifffile.imwrite(tmp_path / f"{row}_{col}.tif", tile)
    found = spt.io.tile_folder(tmp_path, "{row}_{col}.tif")
    assert_array_equal(found.keys, made.grid)
    links = spt.grid_links((2, 2))
    lazy = spt.match_tiles(found.tiles, links, positions=made.stage)
    plain = spt.match_tiles(made.tiles, links, positions=made.stage)
    assert_array_equal(lazy.reference_points, plain.reference_points)


def test_tiles_without_numbers_come_in_natural_order(tmp_path):
    names = [f"tile_{n}/channel0.png" for n in (10, 9, 100, 1)]
    folder_of(
        [*names, "tile_2/channel1.png", ".tile_3/channel0.png"], tmp_path, np.eye(4) > 0
    )
    found = spt.io.tile_folder(tmp_path, "tile_*/channel0.png")
    assert found.keys == [0, 1, 2, 3]
    assert [path.parent.name for path in found.paths] == [
        "tile_1", "tile_9", "tile_10", "tile_100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("{row}.png", "`pattern` must have row and col, or index alone; got"),
        ("{row}_{row}.png", "`pattern` must have each of .* at most once"),
        ("{row}_{col.__class__}.png", "`pattern` must have each of .* at most once"),
        ("{row!r}_{col}.png", "`pattern` must have each of .* at most once"),
        ("{row:>9}_{col}.png", "`pattern` must have each of .* at most once"),
        ("../{row}_{col}.png", "`pattern` must name files inside of the folder; got"),
        ("/a/{row}_{col}.png", "`pattern` must name files inside of the folder; got"),
        ("a//{row}_{col}.png", "`pattern` must name files inside of the folder; got"),
        ("*/{row}_{row}.png", "`pattern` must have each of .* at most once"),
        ("a.png", "`pattern` must have row and col, or index alone; got"),
        ("a/*.png", "`pattern` must fit files of .*, which fits none"),
        ("{row}_{col.png", "`pattern` must be a format such as"),
        ("no{row}_{col}.png", "`pattern` must fit files of .*, which fits none"),
        ("{row}_{col}.png", "must give every file of .* a key of its own; got .0, 1"),
    ],
)
def test_patterns_that_do_not_fit_are_named(pattern, match, tmp_path):
    folder_of(["0_1.png", "00_1.png"], tmp_path, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=match):
        spt.io.tile_folder(tmp_path, pattern)


def test_images_that_are_none_are_named(tmp_path):
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"0.png must be a readable image; got"):
        spt.io.tile_folder(tmp_path, "{index}.png")


def test_images_that_cannot_be_so_large_are_named(tmp_path):
    image = np.zeros((16, 16), np.uint8)
    tifffile.imwrite(tmp_path / "0.tif", image, compression="zlib")
    data = (tmp_path / "0.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "0.tif") as file:
        places = [file.pages[0].tags[name].valueoffset for name in (256, 257)]
    for place in places:
        data = data[:place] + b"\xff\xff" + data[place + 2 :]
    (tmp_path / "0.tif").write_bytes(data)
    with pytest.raises(ValueError, match=r"0.tif must hold its .65535, 65535. pixels"):
        spt.io.tile_folder(tmp_path, "{index}.tif")
