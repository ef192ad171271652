"""The embedded data set: 100 characters of 11 scripts, a small Omniglot that needs no download.

Characters are drawn with the fonts that matplotlib ships (DejaVu, STIX, Computer Modern; all free to use and
to draw with). As in Omniglot (Lake et al., 2015) whole alphabets are held out: no alphabet stands in two
splits. Every image has its own font, affine warp, wobble, stroke width, colours, background, clutter and
noise.

Which characters are in `ALPHABETS` was decided by measurement: shapes were compared under small rotations,
stretches, shifts and mirroring (training flips images), and of two that are alike (A, Α, А; b, d) at most
one was kept. `tests/unit/test_glyphs.py` measures this again.

100 classes of 60 images at 32 px take about 4 s on one core.
"""

import unicodedata
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, map_coordinates

from metantk.data.store import Split
from metantk.runtime.files import InputError

# split -> alphabet -> its classes, one character each.
ALPHABETS = {
    "train": {
        "latin": "ACFKLMRTUWghtvzæ",
        "cyrillic": "ЋЕЩжфчыюђѳ",
        "canadian": "ᐂᐫᐬᐭᒈᓁᓔᔦᔧᕅ",
        "arabic": "ءبثزطفمي",
        "tifinagh": "ⴼⵋⵌⵖⵘⵜⵢⵣ",
        "lao": "ຈຊມຯຽແ",
        "symbols": "∅√∴≋≜≠",
    },
    "val": {
        "greek": "ΞΣΨΩλξςχ",
        "hebrew": "אהךלמץצק",
    },
    "test": {
        "armenian": "ԷԻԿՀՂՃՖխղվ",
        "georgian": "ავლორტფღჰჴ",
    },
}

# Fonts with a Unicode table that can be believed: a character in it is drawn as that character.
UNICODE_FONTS = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
)
# Computer Modern puts other shapes at most places of its table; only A-Z and a-z are what they say.
LETTER_FONTS = tuple(f"{name}.ttf" for name in ("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10", "cmmi10"))

# How hard the images are. Lengths are shares of the image's side, colours run from 0 to 1, and a pair is
# the two ends of a uniform draw per image. With these values a four-layer convolutional network (32 to 64
# channels, 15 epochs on 60 images of 28 px per training class) told 5 test classes apart with 61.7 % from
# one example of each and 83.4 % from five (one run, 400 episodes, nearest centroid).
GLYPH_SIZE = (0.6, 0.9)  # longer side of the character before it is warped
SHIFT = 0.07  # of the centre, each way
ROTATION_DEGREES = 15.0  # each way
SHEAR = 0.2  # each way
STRETCH = 0.18  # natural logarithm of height over width, each way
WOBBLE = 0.02  # amplitude of each of the smooth waves that bend the strokes
STROKE_CHANGE = (-0.01, 0.03)  # added on either side of each stroke
SOFTNESS_PIXELS = (0.8, 1.5)  # width of the edge of a stroke
CONTRAST = (0.35, 0.85)  # between character and background, dark on light or light on dark
COLOUR_SPREAD = 0.2  # of the channels about their grey level
GRADIENT = 0.2  # change of the background from one side to the other
TEXTURE = 0.07  # standard deviation of the cloudy part of the background
CLUTTER_STROKES = 2  # at most; straight, drawn over background and character
CLUTTER_WIDTH = (0.01, 0.03)  # half of a stroke's width
NOISE = (0.01, 0.06)  # standard deviation per pixel and channel

WAVES = 2  # per axis
TEXTURE_CELLS = 6  # random values along each side, interpolated
FIELD_PIXELS = 80  # side of a character's distance field
FIELD_GLYPH_PIXELS = 52  # longer side of the character in it; the margin leaves room for thicker strokes
RENDER_POINTS = 120  # size at which fonts are drawn before scaling


def make_glyphs(*, image_size: int, images_per_class: int, seed: int) -> dict[str, Split]:
    """Draw the data set: 64 training, 16 validation and 20 test classes, images in order of class.

    Args:
        image_size: side of the square images, in pixels.
        images_per_class: images of each class.
        seed: equal seeds give equal bytes; each class has its own generator.

    Returns:
        `train`, `val` and `test`, images uint8 `(classes * images_per_class, image_size, image_size, 3)`.

    Raises:
        InputError: the installed matplotlib has no font for some character.
    """
    return {
        name: _draw_split(alphabets, image_size, images_per_class, seed) for name, alphabets in ALPHABETS.items()
    }


def _draw_split(alphabets: dict[str, str], image_size: int, count: int, seed: int) -> Split:
    classes = [(alphabet, character) for alphabet, text in alphabets.items() for character in text]
    images = np.empty((len(classes) * count, image_size, image_size, 3), np.uint8)
    for index, (_, character) in enumerate(classes):
        generator = np.random.default_rng([seed, ord(character)])
        images[index * count : (index + 1) * count] = draw_character(character, count, image_size, generator)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), count)
    return Split(images, labels, [class_name(*entry) for entry in classes])


def class_name(alphabet: str, character: str) -> str:
    """Printable and unique, for example `armenian/capital letter eh`."""
    name = unicodedata.name(character).removeprefix(f"{alphabet.upper()} ")
    return f"{alphabet}/{name.lower()}"


def font_directory() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def _characters_of(font: str) -> frozenset[int]:
    path = font_directory() / font
    return frozenset(TTFont(path, lazy=True).getBestCmap()) if path.is_file() else frozenset()


def fonts_of(character: str) -> list[str]:
    """File names of the fonts that can draw `character`.

    Raises:
        InputError: there is none.
    """
    is_letter = character.isascii() and character.isalpha()
    names = UNICODE_FONTS + LETTER_FONTS if is_letter else UNICODE_FONTS
    found = [name for name in names if ord(character) in _characters_of(name)]
    if not found:
        raise InputError(
            f"{font_directory()}: no font has U+{ord(character):04X}; reinstall matplotlib, with its fonts"
        )
    return found


def render_character(character: str, font: str, side: int, glyph_side: int) -> np.ndarray:
    """Draw one character in the middle of a square, its longer side `glyph_side` pixels whatever the font.

    Returns:
        uint8 `(side, side)`, 255 where there is ink; all 0 if the font draws nothing.
    """
    face = _load_font(font)
    left, top, right, bottom = face.getbbox(character)
    ink = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(ink).text((1 - left, 1 - top), character, font=face, fill=255)
    square = Image.new("L", (side, side))
    if box := ink.getbbox():
        ink = ink.crop(box)
        scale = glyph_side / max(ink.size)
        ink = ink.resize([max(1, round(length * scale)) for length in ink.size], Image.Resampling.BOX)
        square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return np.asarray(square)


@cache
def _load_font(font: str) -> ImageFont.FreeTypeFont:
    # The basic layout does not join or reorder letters, and does not depend on an optional library.
    path = str(font_directory() / font)
    return ImageFont.truetype(path, RENDER_POINTS, layout_engine=ImageFont.Layout.BASIC)


def _distance_field(character: str, font: str) -> np.ndarray:
    """Signed distance to the edge of the ink, negative inside, in units of the character's longer side."""
    ink = render_character(character, font, FIELD_PIXELS, FIELD_GLYPH_PIXELS) > 127
    return (distance_transform_edt(~ink) - distance_transform_edt(ink)) / FIELD_GLYPH_PIXELS


def draw_character(character: str, count: int, image_size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` images of one character, each with its own font, warp, colours and disturbances.

    Returns:
        uint8 `(count, image_size, image_size, 3)`.
    """
    fields = np.stack([_distance_field(character, font) for font in fonts_of(character)]).astype(np.float32)
    grid = _pixel_grid(image_size)
    ink = _draw_ink(fields, grid, count, generator)
    background = _draw_background(grid, count, generator)
    colour = _contrasting_colour(background, generator)
    images = background + ink[..., None] * (colour - background)
    images = _draw_clutter(images, grid, generator)
    images += _uniform(generator, NOISE, count) * generator.standard_normal(images.shape, np.float32)
    return (images.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _pixel_grid(image_size: int) -> np.ndarray:
    """Centres of the pixels, `(2, image_size, image_size)`: x and y from -0.5 to 0.5."""
    centres = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size - 0.5
    return np.stack(np.meshgrid(centres, centres))


def _uniform(generator: np.random.Generator, ends: tuple[float, float], count: int) -> np.ndarray:
    """One draw per image, `(count, 1, 1, 1)`."""
    return generator.uniform(*ends, (count, 1, 1, 1)).astype(np.float32)


def _draw_ink(fields: np.ndarray, grid: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Coverage by the character, 0 to 1, `(count, image_size, image_size)`; one field per font."""
    image_size = grid.shape[-1]
    size = _uniform(generator, GLYPH_SIZE, count)[..., 0]
    positions = _warp(grid, count, generator) / size[:, None] * FIELD_GLYPH_PIXELS + (FIELD_PIXELS - 1) / 2
    fonts = np.broadcast_to(generator.integers(len(fields), size=(count, 1, 1)), positions[:, 0].shape)
    where = np.stack([fonts, positions[:, 1], positions[:, 0]])
    distance = map_coordinates(fields, where, order=1, mode="nearest") * size
    stroke = _uniform(generator, STROKE_CHANGE, count)[..., 0]
    softness = _uniform(generator, SOFTNESS_PIXELS, count)[..., 0]
    return (0.5 + (stroke - distance) * image_size / softness).clip(0, 1)


def _warp(grid: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Where in the upright character each pixel lies, `(count, 2, image_size, image_size)`."""
    shifts = generator.uniform(-SHIFT, SHIFT, (count, 2, 1, 1))
    bent = grid + shifts + _waves(grid, count, generator)
    return np.einsum("nij,njhw->nihw", _affine_matrices(count, generator), bent).astype(np.float32)


def _affine_matrices(count: int, generator: np.random.Generator) -> np.ndarray:
    """Rotation after shear after stretch that keeps the area, `(count, 2, 2)`."""
    angle = np.deg2rad(generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count))
    shear = generator.uniform(-SHEAR, SHEAR, count)
    stretch = np.exp(generator.uniform(-STRETCH, STRETCH, count) / 2)
    zero, one = np.zeros(count), np.ones(count)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[one, shear], [zero, one]])
    scale = np.array([[stretch, zero], [zero, 1 / stretch]])
    return np.einsum("ijn,jkn,kln->nil", rotate, slant, scale)


def _waves(grid: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Smooth displacements, `(count, 2, image_size, image_size)`: waves of about one period per side."""
    direction = generator.uniform(-1, 1, (count, 2, WAVES, 2))
    phase = generator.uniform(0, 2 * np.pi, (count, 2, WAVES, 1, 1))
    amplitude = generator.uniform(0, WOBBLE, (count, 2, WAVES, 1, 1))
    angle = 2 * np.pi * np.einsum("nakj,jhw->nakhw", direction, grid) + phase
    return (amplitude * np.sin(angle.astype(np.float32))).sum(2)


def _draw_background(grid: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Colour, gradient and clouds, `(count, image_size, image_size, 3)`."""
    grey = generator.uniform(0.2, 0.8, (count, 1, 1, 1))
    colour = grey + generator.uniform(-COLOUR_SPREAD, COLOUR_SPREAD, (count, 1, 1, 3))
    slope = generator.uniform(-GRADIENT, GRADIENT, (count, 2, 3))
    gradient = np.einsum("njc,jhw->nhwc", slope, grid)
    cells = TEXTURE * generator.standard_normal((count, TEXTURE_CELLS, TEXTURE_CELLS, 3))
    spread = _interpolation(grid.shape[-1], TEXTURE_CELLS)
    clouds = np.einsum("hi,wj,nijc->nhwc", spread, spread, cells, optimize=True)
    return (colour + gradient + clouds).astype(np.float32)


def _interpolation(size: int, cells: int) -> np.ndarray:
    """Matrix `(size, cells)` that interpolates linearly from `cells` values to `size`."""
    place = np.linspace(0, cells - 1, size)
    return (1 - np.abs(place[:, None] - np.arange(cells))).clip(0)


def _contrasting_colour(background: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A colour per image, `(count, 1, 1, 3)`, darker or lighter than the mean of its background."""
    count = len(background)
    mean = background.mean((1, 2), keepdims=True)
    contrast = _uniform(generator, CONTRAST, count)
    lighter = generator.random((count, 1, 1, 1)) < 0.5
    grey = mean.mean(-1, keepdims=True)
    # A colour past white or black would be cut back to less contrast than was drawn.
    lighter = np.where(grey + contrast > 1, False, np.where(grey - contrast < 0, True, lighter))
    tint = generator.uniform(-COLOUR_SPREAD, COLOUR_SPREAD, (count, 1, 1, 3))
    tint -= tint.mean(-1, keepdims=True)
    return (mean + np.where(lighter, contrast, -contrast) + tint).clip(0, 1).astype(np.float32)


def _draw_clutter(images: np.ndarray, grid: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw up to `CLUTTER_STROKES` straight strokes of random colours over each image."""
    count, image_size = images.shape[:2]
    strokes = generator.integers(CLUTTER_STROKES + 1, size=(count, 1, 1, 1))
    for stroke in range(CLUTTER_STROKES):
        ends = generator.uniform(-0.6, 0.6, (2, count, 2, 1, 1)).astype(np.float32)
        distance = _distance_to_segment(grid, *ends)[..., None]
        width = _uniform(generator, CLUTTER_WIDTH, count)
        ink = (0.5 + (width - distance) * image_size).clip(0, 1) * (stroke < strokes)
        colour = generator.uniform(0, 1, (count, 1, 1, 3)).astype(np.float32)
        images = images + ink * (colour - images)
    return images


def _distance_to_segment(grid: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each pixel from a segment per image, `(count, image_size, image_size)`."""
    along = end - start
    offset = grid - start
    share = ((offset * along).sum(1, keepdims=True) / (along * along).sum(1, keepdims=True)).clip(0, 1)
    return np.sqrt(np.square(offset - share * along).sum(1))
