"""The embedded data set: its splits, its bytes, its fonts, and that no two of its classes look alike."""

from itertools import pairwise

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from scipy.ndimage import distance_transform_edt

from metantk.data import glyphs
from metantk.data.store import SPLITS, check_splits, stream_split
from metantk.runtime.files import InputError

CHARACTERS = [
    character for alphabets in glyphs.ALPHABETS.values() for text in alphabets.values() for character in text
]

# Two shapes are alike if, laid over each other as well as they can be, the ink of each lies on average nearer
# to the other's than this share of the longer side. In one font D and O are 0.015 apart, K and Қ 0.018,
# Ψ and Ѱ 0.021, h and n 0.029. Across fonts a bold shape is near to everything, so less is asked.
ALIKE_IN_ONE_FONT = 0.024
ALIKE_ACROSS_FONTS = 0.011
COMMON_FONT = "DejaVuSans.ttf"
SIDE, GLYPH_SIDE, FINE = 28, 20, 4
FAR = 5.0  # pixels; a distance counts no more than this


@pytest.fixture(scope="module")
def splits():
    return glyphs.make_glyphs(image_size=20, images_per_class=3, seed=1)


def test_splits_are_whole_and_share_no_alphabet(splits):
    assert tuple(splits) == SPLITS
    assert [len(split.class_names) for split in splits.values()] == [64, 16, 20]
    check_splits({part: stream_split(split) for part, split in splits.items()}, source="glyphs")
    alphabets = [alphabet for part in glyphs.ALPHABETS.values() for alphabet in part]
    assert len(set(alphabets)) == len(alphabets)
    assert len(set(CHARACTERS)) == len(CHARACTERS) == 100


def test_images_are_bytes_in_order_of_class(splits):
    for split in splits.values():
        classes = len(split.class_names)
        assert split.images.dtype == np.uint8
        assert split.images.shape == (3 * classes, 20, 20, 3)
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == [label for label in range(classes) for _ in range(3)]


def test_class_names_are_printable_and_name_the_alphabet(splits):
    names = [name for split in splits.values() for name in split.class_names]
    assert len(set(names)) == 100
    assert all(name.isascii() and name.isprintable() for name in names)
    assert glyphs.class_name("greek", "λ") == "greek/small letter lamda"


def test_seed_decides_every_byte(splits):
    again = glyphs.make_glyphs(image_size=20, images_per_class=3, seed=1)
    other = glyphs.make_glyphs(image_size=20, images_per_class=3, seed=2)
    for name in SPLITS:
        np.testing.assert_array_equal(splits[name].images, again[name].images)
        assert (splits[name].images != other[name].images).mean() > 0.9


def test_no_two_images_of_a_class_are_equal():
    images = glyphs.draw_character("A", 50, 28, np.random.default_rng(0))
    assert len(np.unique(images.reshape(50, -1), axis=0)) == 50


@pytest.mark.parametrize("image_size", [1, 8, 33, 84])
def test_any_size_can_be_drawn(image_size):
    images = glyphs.draw_character("A", 2, image_size, np.random.default_rng(0))
    assert images.shape == (2, image_size, image_size, 3)


def test_every_font_used_draws_the_character():
    for font in {font for character in CHARACTERS for font in glyphs.fonts_of(character)}:
        with TTFont(glyphs.font_directory() / font, lazy=True) as file:
            table = file.getBestCmap()
            missing = file.getReverseGlyphMap()[".notdef"]
            indices = file.getReverseGlyphMap()
        # A character that no font has is drawn as the font's box.
        box = glyphs.render_character("\U0010fffe", font, 64, 48)
        for character in (one for one in CHARACTERS if font in glyphs.fonts_of(one)):
            ink = glyphs.render_character(character, font, 64, 48)
            assert indices[table[ord(character)]] != missing, (font, character)
            assert (ink > 127).sum() > 50, (font, character)
            assert not np.array_equal(ink, box), (font, character)


def test_computer_modern_is_used_for_letters_only():
    assert set(glyphs.LETTER_FONTS) <= set(glyphs.fonts_of("A"))
    assert not set(glyphs.LETTER_FONTS) & set(glyphs.fonts_of("æ"))


def test_computer_modern_letters_are_what_they_say():
    shapes = {letter: _features(_shapes(letter, (COMMON_FONT, *glyphs.LETTER_FONTS))) for letter in "ACFKLMTUVYw"}
    ours = [shapes[letter] for letter in shapes]
    for index, (ink, distance) in enumerate(ours):
        to_own = _chamfer(ink[1:], distance[1:], ink[:1], distance[:1]).mean()
        for other, (other_ink, other_distance) in enumerate(ours):
            if other != index:
                assert to_own < _chamfer(ink[1:], distance[1:], other_ink[:1], other_distance[:1]).mean()


def test_missing_fonts_are_an_input_error(monkeypatch):
    monkeypatch.setattr(glyphs, "UNICODE_FONTS", ("absent.ttf",))
    with pytest.raises(InputError, match=r"no font has U\+03BB; reinstall matplotlib"):
        glyphs.fonts_of("λ")


def test_the_measure_finds_what_people_find_alike():
    for one, other in ("AΑ", "AА", "bd", "pq", "CƆ", "NИ", "OО", "Λʌ"):
        assert _nearest_in_one_font(one + other)[0, 1] < ALIKE_IN_ONE_FONT, one + other
    for one, other in ("AM", "TX", "SE", "Ψλ"):
        assert _nearest_in_one_font(one + other)[0, 1] > ALIKE_IN_ONE_FONT, one + other


def test_no_two_classes_look_alike_in_one_font():
    distance = _nearest_in_one_font(CHARACTERS)
    assert _pairs_below(distance, ALIKE_IN_ONE_FONT) == []


def test_no_two_classes_look_alike_across_fonts():
    distance = _nearest_across_fonts(CHARACTERS)
    assert _pairs_below(distance, ALIKE_ACROSS_FONTS) == []


def _pairs_below(distance: np.ndarray, limit: float) -> list[str]:
    rows, columns = np.nonzero(np.triu(distance < limit, k=1))
    return [
        f"{CHARACTERS[row]} {CHARACTERS[column]} {distance[row, column]:.4f}"
        for row, column in zip(rows, columns, strict=True)
    ]


def _nearest_in_one_font(characters) -> np.ndarray:
    """Distance between each two characters in the common font, over mirror, rotation, stretch and shift."""
    upright = [_shapes(character, (COMMON_FONT,))[0] for character in characters]
    ink, distance = _features([_fit(shape) for shape in upright])
    nearest = np.empty((len(upright), len(upright)), np.float32)
    for row, shape in enumerate(upright):
        poses = _features([_fit(pose) for pose in _poses(shape)])
        nearest[row] = _chamfer(*poses, ink, distance, reach=2).min(0)
    return np.minimum(nearest, nearest.T)


def _nearest_across_fonts(characters) -> np.ndarray:
    """The same between each two characters in any two of their fonts, over mirroring and shift."""
    shapes = [_shapes(character, glyphs.fonts_of(character)) for character in characters]
    starts = np.cumsum([0, *map(len, shapes)])
    flat = [shape for of_character in shapes for shape in of_character]
    upright = _features([_fit(shape) for shape in flat])
    mirrored = _features([_fit(_mirror(shape)) for shape in flat])
    nearest = np.minimum(_chamfer(*upright, *upright), _chamfer(*mirrored, *upright))
    nearest = np.minimum.reduceat(np.minimum.reduceat(nearest, starts[:-1], 0), starts[:-1], 1)
    assert all(start < stop for start, stop in pairwise(starts))
    return np.minimum(nearest, nearest.T)


def _shapes(character: str, fonts) -> list[Image.Image]:
    side, glyph_side = SIDE * FINE, GLYPH_SIDE * FINE
    return [Image.fromarray(glyphs.render_character(character, font, side, glyph_side)) for font in fonts]


def _mirror(shape: Image.Image) -> Image.Image:
    return shape.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _poses(shape: Image.Image):
    bilinear = Image.Resampling.BILINEAR
    for facing in (shape, _mirror(shape)):
        for stretch in (0.85, 1.0, 1.18):
            stretched = facing.resize((round(facing.width * stretch), facing.height), bilinear)
            for angle in (-24, -12, 0, 12, 24):
                yield stretched.rotate(angle, expand=True, resample=bilinear)


def _fit(shape: Image.Image) -> Image.Image:
    """Crop to the ink, bring the longer side to `GLYPH_SIDE`, and put it in the middle."""
    shape = shape.crop(shape.getbbox())
    scale = GLYPH_SIDE * FINE / max(shape.size)
    shape = shape.resize([max(1, round(length * scale)) for length in shape.size], Image.Resampling.BILINEAR)
    square = Image.new("L", (SIDE * FINE, SIDE * FINE))
    square.paste(shape, ((square.width - shape.width) // 2, (square.height - shape.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.BOX)


def _features(shapes) -> tuple[np.ndarray, np.ndarray]:
    """Ink that sums to 1, and distance of each pixel to the ink, both `(shapes, SIDE, SIDE)`."""
    pixels = [np.asarray(shape.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for shape in shapes]
    masks = np.stack([shape > min(100, shape.max() / 2) for shape in pixels])
    ink = (masks / masks.sum((1, 2), keepdims=True)).astype(np.float32)
    distance = np.stack([distance_transform_edt(~mask) for mask in masks])
    return ink, np.minimum(distance, FAR).astype(np.float32)


def _chamfer(ink, distance, other_ink, other_distance, reach: int = 1) -> np.ndarray:
    """Larger of the two mean distances, ink to ink, at the best shift up to `reach`, `(shapes, others)`."""
    nearest = np.float32(np.inf)
    others, their_distance = (array.reshape(len(array), -1).T for array in (other_ink, other_distance))
    for moved_ink, moved_distance in zip(_shifted(ink, 0, reach), _shifted(distance, FAR, reach), strict=True):
        worst = np.maximum(moved_ink @ their_distance, moved_distance @ others)
        nearest = np.minimum(nearest, worst)
    return nearest / GLYPH_SIDE


def _shifted(array: np.ndarray, filling: float, reach: int):
    padded = np.pad(array, ((0, 0), (reach, reach), (reach, reach)), constant_values=filling)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            yield padded[:, row : row + SIDE, column : column + SIDE].reshape(len(array), -1)
