"""Photographs of emblems: pose, finish, light, ground, cover and sensor, all drawn from one seed an image."""

from __future__ import annotations

import colorsys
from io import BytesIO

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fastrecipes.data.emblems import BRANDS, Outline, Shape, arc, poly, stroke, turned

__all__ = ["VERSION", "badge_jpeg", "drawn", "soft"]

# Shapes of the arrays below: h, w pixels of the photograph; n points of an outline.
Array = NDArray[np.floating]
Camera = NDArray[np.float64]  # (3, 3), from the plane of the emblem to pixels
Ramp = NDArray[np.floating]  # (256, 3), the colours of a material from facing the ground to facing the sky
Size = tuple[int, int]  # w, h in pixels

# A change to any drawing changes this number, so that an older cached set is not taken for it.
VERSION = 1


def _colour(rng: Generator) -> tuple[float, float, float]:
    """A car's paint: a grey about as often as a colour."""
    saturation = rng.uniform(0.25, 0.85) if rng.random() < 0.45 else rng.uniform(0.0, 0.12)
    return colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.08, 0.95))


def _ramp(at: list[float], colours: list[tuple[float, ...]]) -> Ramp:
    x = np.linspace(0, 1, 256)
    return np.stack([np.interp(x, at, c) for c in zip(*colours, strict=True)], axis=1).astype(np.float32)


def _chrome(rng: Generator) -> Ramp:
    """Ground, a dark horizon, then the sky, tinted by whatever stands around."""
    greys = [0.05, rng.uniform(0.2, 0.5), 0.08, rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.9), 1.0]
    horizon = rng.uniform(0.4, 0.6)
    ground, sky = rng.uniform(0.85, 1.1, 3), rng.uniform(0.92, 1.08, 3)
    tints = [ground, ground, ground, sky, sky, np.ones(3)]
    at = [0, horizon - 0.15, horizon, horizon + rng.uniform(0.02, 0.1), 0.85, 1]
    gold = np.array([1, rng.uniform(0.75, 0.95), rng.uniform(0.4, 0.9)])
    metal = gold if rng.random() < 0.3 else np.ones(3)
    return _ramp(at, [tuple(g * t * metal) for g, t in zip(greys, tints, strict=True)])


def _painted(rng: Generator) -> Ramp:
    """One colour, darker away from the light, with a highlight as wide as the lacquer is dull."""
    c = np.array(_colour(rng))
    gloss = rng.uniform(0.0, 0.8)
    return _ramp(
        [0, 0.5, rng.uniform(0.75, 0.92), 1],
        [tuple(0.25 * c), tuple(0.8 * c), tuple(c), tuple(c + gloss * (1 - c))],
    )


def _finish(rng: Generator) -> Ramp:
    return _chrome(rng) if rng.random() < 0.55 else _painted(rng)


def _shade(ramp: Ramp, tone: Array) -> Array:
    """Colours (h, w, 3) of a surface whose tone (h, w) says which way it faces, 0 down to 1 up."""
    return ramp[(np.clip(tone, 0, 1) * 255).astype(np.uint8)]


def _grid(size: Size) -> tuple[Array, Array]:
    """The place of each pixel: x (1, w) and y (h, 1), both from -1 to 1."""
    w, h = size
    return np.linspace(-1, 1, w, dtype=np.float32)[None], np.linspace(-1, 1, h, dtype=np.float32)[:, None]


def _clouds(rng: Generator, size: Size, grain: int) -> Array:
    """Smooth noise (h, w) of unit spread whose lumps are about `grain` pixels wide."""
    lumps = rng.standard_normal((size[1] // grain + 2, size[0] // grain + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(lumps).resize(size, Image.Resampling.BICUBIC))


def _pose(rng: Generator, size: Size) -> Camera:
    """A view of the emblem from near, off its axis and not quite level."""
    roll, yaw, pitch = np.radians(rng.uniform(-1, 1, 3) * (25, 45, 35))
    cr, sr, cy, sy, cp, sp = (f(a) for a in (roll, yaw, pitch) for f in (np.cos, np.sin))
    turn = (
        np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    )
    away = rng.uniform(2.5, 5.0)
    focus = away * rng.uniform(0.26, 0.42) * min(size)
    x, y = np.array(size) / 2 + rng.uniform(-0.1, 0.1, 2) * min(size)
    lens = np.array([[focus, 0, x], [0, focus, y], [0, 0, 1]])
    return lens @ np.column_stack([turn[:, 0], turn[:, 1], (0, 0, away)])


def _seen(outline: Outline, pose: Camera) -> Outline:
    """The outline in pixels."""
    u, v, depth = pose @ np.column_stack([outline, np.ones(len(outline))]).T
    return np.stack([u / depth, v / depth], axis=1)


def drawn(shape: Shape, pose: Camera, size: Size) -> Image.Image:
    """The mask of a shape at twice the size, so that halving it smooths the edges."""
    mask = Image.new("L", (2 * size[0], 2 * size[1]))
    pen = ImageDraw.Draw(mask)
    for adds, outline in shape:
        pen.polygon((2 * _seen(outline, pose)).ravel().tolist(), fill=255 if adds else 0)
    return mask


def soft(mask: Image.Image, radius: float = 0) -> Array:
    """A mask drawn at twice the size as opacity (h, w) in 0..1, blurred by `radius` pixels."""
    half = mask.reduce(2)
    blurred = half.filter(ImageFilter.GaussianBlur(radius)) if radius else half
    return np.asarray(blurred, dtype=np.float32) / 255


def _laid(photo: Array, colour: Array, opacity: Array) -> Array:
    return photo + (colour - photo) * opacity[..., None]


def _raised(rng: Generator, photo: Array, mask: Image.Image, ramp: Ramp) -> Array:
    """The photo with a relief laid on it: a shadow, then metal with rounded edges under one light."""
    h, w = photo.shape[:2]
    bevel = rng.uniform(0.012, 0.03) * min(h, w)
    dy, dx = np.gradient(soft(mask, bevel) + soft(mask, bevel / 2))
    side = rng.uniform(-0.8, 0.8)
    x, y = _grid((w, h))
    bowl = rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.35, 0.2) * y
    tone = 0.6 - (dy + side * dx) * bevel * rng.uniform(0.5, 0.9) + bowl + 0.04 * _clouds(rng, (w, h), 24)
    shadow = np.roll(soft(mask, 2 * bevel), (round(bevel), round(side * bevel)), (0, 1))
    dimmed = photo * (1 - rng.uniform(0.2, 0.7) * shadow)[..., None]
    return _laid(dimmed, _shade(ramp, tone), soft(mask))


def _bodywork(rng: Generator, size: Size, pose: Camera) -> Array:
    """A painted panel that mirrors a horizon and bends away from the light."""
    x, y = _grid(size)
    tone = 0.55 - rng.uniform(-0.1, 0.35) * y + rng.uniform(-0.2, 0.2) * x
    edge = y - rng.uniform(-0.8, 0.8) - rng.uniform(-0.4, 0.4) * x - 0.1 * _clouds(rng, size, 40)
    mirrored = rng.uniform(-0.3, 0.3) * np.clip(edge * rng.uniform(2, 25), -1, 1)
    return _shade(_painted(rng), tone + mirrored + 0.03 * _clouds(rng, size, 16))


def _slats(rng: Generator) -> Shape:
    pitch = rng.uniform(0.22, 0.5)
    thick = pitch * rng.uniform(0.3, 0.7)
    rows = np.arange(-3, 3, pitch) + rng.uniform(0, pitch)
    return [part for y in rows for part in stroke(thick, (-3, y), (3, y))]


def _mesh(rng: Generator) -> Shape:
    pitch = rng.uniform(0.25, 0.4)
    cell = arc(pitch * rng.uniform(0.42, 0.52), 0, 360)[:: int(rng.choice([8, 12, 3]))]
    shape: Shape = [(True, poly((-3, -3), (3, -3), (3, 3), (-3, 3)))]
    for row, y in enumerate(np.arange(-2.2, 2.2, 0.87 * pitch)):
        shift = pitch / 2 * (row % 2)
        shape += [(False, cell + np.array((x + shift, y))) for x in np.arange(-2.2, 2.2, pitch)]
    return shape


def _grille(rng: Generator, size: Size, pose: Camera) -> Array:
    """Slats or a mesh before a dark hole, in the plane of the emblem."""
    hole = np.full((size[1], size[0], 3), rng.uniform(0.0, 0.12), dtype=np.float32)
    shape = _slats(rng) if rng.random() < 0.5 else _mesh(rng)
    if rng.random() < 0.4:
        shape = turned(shape, 90)
    return _raised(rng, hole, drawn(shape, pose, size), _finish(rng) * np.float32(rng.uniform(0.25, 0.9)))


def _street(rng: Generator, size: Size, pose: Camera) -> Array:
    """Sky, ground and a crowd of things, out of focus."""
    scene = Image.fromarray((_bodywork(rng, size, pose) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(scene)
    for _ in range(rng.integers(8, 24)):
        (x, y), (rx, ry) = rng.uniform(0, 1, 2) * size, rng.uniform(0.02, 0.3, 2) * min(size)
        fill = tuple(int(255 * c) for c in _colour(rng))
        draw = pen.ellipse if rng.random() < 0.3 else pen.rectangle
        draw((x - rx, y - ry, x + rx, y + ry), fill=fill)
    blurred = scene.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 7.0)))
    return np.asarray(blurred, dtype=np.float32) / 255


def _rough(rng: Generator, size: Size, pose: Camera) -> Array:
    """Asphalt, leather or rust: noise of several grains in one colour."""
    grains = [rng.uniform(0.03, 0.12) * _clouds(rng, size, grain) for grain in (2, 5, 14, 50)]
    return _shade(_painted(rng), 0.55 + np.sum(grains, axis=0))


def _plate(rng: Generator) -> Shape:
    """A backing that any brand may have, so that an outer rim says nothing about the emblem."""
    corners = int(rng.choice([4, 6, 48]))
    t = np.radians(np.arange(corners) * 360 / corners + 45)
    return [(True, 1.25 * np.stack([np.cos(t), np.sin(t)], axis=1))]


def _backdrop(rng: Generator, size: Size, pose: Camera) -> Array:
    scenes = (_bodywork, _bodywork, _grille, _grille, _street, _rough)
    photo = scenes[rng.integers(len(scenes))](rng, size, pose)
    if rng.random() < 0.4:
        plate = _plate(rng)
        if rng.random() < 0.5:
            photo = _raised(rng, photo, drawn(plate, pose, size), _finish(rng))
            plate = [(True, outline * 0.9) for _, outline in plate]
        photo = _raised(rng, photo, drawn(plate, pose, size), _painted(rng))
    return photo


def _blob(rng: Generator, size: Size, reach: float) -> Shape:
    """A rounded, mostly oblong outline in pixels, somewhere near the middle."""
    t = np.linspace(0, 2 * np.pi, 48)
    waves = sum(rng.uniform(0, 0.8 / k) * np.sin(k * t + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    r = reach * min(size) * (1 + waves)
    centre = np.array(size) * rng.uniform(0.15, 0.85, 2)
    return [(True, centre + np.stack([r * np.cos(t), 0.7 * r * np.sin(t)], axis=1))]


def _covered(rng: Generator, photo: Array) -> Array:
    """A leaf, a sticker or a pane's reflection over part of the photo; mostly nothing."""
    size = photo.shape[1], photo.shape[0]
    flat = np.eye(3)
    if rng.random() < 0.35:
        pane = soft(drawn(_blob(rng, size, 0.6), flat, size), rng.uniform(1, 12))
        photo = _laid(photo, np.array(_colour(rng), np.float32), rng.uniform(0.1, 0.45) * pane)
    if rng.random() < 0.25:
        leaf = drawn(_blob(rng, size, rng.uniform(0.08, 0.18)), flat, size)
        photo = _raised(rng, photo, leaf, _painted(rng))
    if rng.random() < 0.25:
        mud = np.clip(_clouds(rng, size, int(rng.integers(3, 14))) - rng.uniform(0.6, 1.6), 0, 1)
        photo = _laid(photo, np.array(_colour(rng), np.float32), mud * rng.uniform(0.3, 0.9))
    return photo


def _lit(rng: Generator, photo: Array) -> Array:
    """Uneven light, a spot of glare, exposure and white balance."""
    x, y = _grid((photo.shape[1], photo.shape[0]))
    slope = rng.uniform(-0.35, 0.35, 2)
    light = 1 + slope[0] * x + slope[1] * y - rng.uniform(0, 0.25) * (x * x + y * y)
    if rng.random() < 0.35:
        at, wide = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.01, 0.25)
        spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / wide)
        photo = photo + rng.uniform(0.2, 0.8) * spot[..., None]
    balance = rng.uniform(0.75, 1.5) * rng.uniform(0.9, 1.1, 3)
    return photo * light[..., None] * balance + rng.uniform(0, 0.1)


def _sensed(rng: Generator, photo: Array) -> Image.Image:
    """Lens blur, now and then a lower resolution, then the noise of a small sensor."""
    size = photo.shape[1], photo.shape[0]
    image = Image.fromarray((np.clip(photo, 0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.6)))
    if rng.random() < 0.3:
        shrink = rng.uniform(0.4, 0.8)
        small = int(size[0] * shrink), int(size[1] * shrink)
        image = image.resize(small, Image.Resampling.BILINEAR).resize(size, Image.Resampling.BILINEAR)
    noise = rng.standard_normal(photo.shape, dtype=np.float32) * rng.uniform(1, 12)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def badge_jpeg(brand: str, index: int) -> bytes:
    """The JPEG of one photo: with the same Pillow and NumPy, the same bytes for a brand and an index.

    >>> badge_jpeg("Bramvel", 0) == badge_jpeg("Bramvel", 0)
    True
    """
    rng = Generator(PCG64([VERSION, index, *brand.encode()]))
    w, h = rng.choice([(160, 160), (176, 144), (192, 144), (208, 136), (144, 176)]) + rng.integers(-12, 13, 2)
    size = int(w), int(h)
    pose = _pose(rng, size)
    photo = _backdrop(rng, size, pose)
    photo = _raised(rng, photo, drawn(BRANDS[brand](rng), pose, size), _finish(rng))
    image = _sensed(rng, _lit(rng, _covered(rng, photo)))
    file = BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(70, 93)))
    return file.getvalue()
