"""The emblems of eight invented car brands, as outlines: the brands differ in shape, not in colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["BRANDS", "Outline", "Shape", "arc", "poly", "stroke", "turned"]

Outline = NDArray[np.float64]  # (n, 2), x to the right and y down, the emblem within [-1, 1]
Shape = list[tuple[bool, Outline]]  # painted in turn: True adds metal, False cuts it away


def arc(r: float, start: float = 0, stop: float = 360, *, at=(0.0, 0.0), flat: float = 1.0) -> Outline:
    """Points of a circle of radius `r` between two angles (degrees, clockwise from the right)."""
    t = np.radians(np.linspace(start, stop, 48))
    return np.stack([at[0] + r * np.cos(t), at[1] + r * flat * np.sin(t)], axis=1)


def _band(r: float, width: float, start: float = 0, stop: float = 360, *, at=(0.0, 0.0)) -> Outline:
    """A bent stroke: the part of a ring between two angles."""
    return np.concatenate([arc(r + width / 2, start, stop, at=at), arc(r - width / 2, stop, start, at=at)])


def poly(*points: tuple[float, float]) -> Outline:
    """A polygon by its corners."""
    return np.array(points, dtype=float)


def stroke(width: float, *points: tuple[float, float]) -> Shape:
    """A broken line of one width, its joints rounded."""
    shape: Shape = [(True, arc(width / 2, at=p)) for p in points[1:-1]]
    for p, q in zip(np.array(points[:-1]), np.array(points[1:]), strict=True):
        along = (q - p) / np.hypot(*(q - p)) * width / 2
        across = np.array([-along[1], along[0]])
        shape.append((True, np.stack([p - across, q - across, q + across, p + across])))
    return shape


def turned(shape: Shape, degrees: float) -> Shape:
    """The shape, turned about the middle."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [(adds, outline @ np.array([[c, s], [-s, c]])) for adds, outline in shape]


def _mirrored(shape: Shape) -> Shape:
    return [(adds, outline * (-1, 1)) for adds, outline in shape]


def _ring_with_bar(rng: Generator) -> Shape:
    width, bar = rng.uniform(0.18, 0.26), rng.uniform(0.2, 0.3)
    ring: Shape = [(True, _band(0.8, width))]
    slash = stroke(bar, (-1, 0), (1, 0))
    gap = [(False, outline) for _, outline in stroke(bar + 0.18, (-1, 0), (1, 0))]
    return turned(ring + gap + slash, -28)


def _linked_arcs(rng: Generator) -> Shape:
    r, width = 0.55, rng.uniform(0.17, 0.23)
    left, right = (-0.36, 0.0), (0.36, 0.0)
    over = _band(r, width, -90, -10, at=left)
    return [
        (True, _band(r, width, 45, 350, at=left)),
        (False, _band(r, width + 0.14, 135, 232, at=right)),
        (True, _band(r, width, -135, 170, at=right)),
        (False, _band(r, width + 0.14, -80, -20, at=left)),
        (True, over),
    ]


def _chevrons(rng: Generator) -> Shape:
    width, gap = rng.uniform(0.2, 0.28), rng.uniform(0.5, 0.6)
    peak: list[tuple[float, float]] = [(-0.85, 0.25), (0, -0.6), (0.85, 0.25)]
    low = [(0.62 * x, 0.62 * y + gap) for x, y in peak]
    return stroke(width, *peak) + stroke(width, *low)


def _three_points(rng: Generator) -> Shape:
    """A pinwheel: each blade swells on one side only, about an open hub."""
    belly, hub = rng.uniform(0.38, 0.5), rng.uniform(0.12, 0.17)
    blade: Shape = [(True, poly((0, -1), (belly, -0.45), (0.3, 0.1), (-0.1, 0.1), (-0.1, -0.4)))]
    blades = [part for turn in (0, 120, 240) for part in turned(blade, turn)]
    return [*blades, (False, arc(hub))]


def _winged_oval(rng: Generator) -> Shape:
    lift = rng.uniform(0.0, 0.15)
    feathers: Shape = [
        (True, poly((0.2, y), (reach, y - 0.1 - lift), (reach - 0.12, y + 0.1 - lift), (0.2, y + 0.15)))
        for y, reach in ((-0.28, 1.0), (-0.04, 0.86), (0.2, 0.68))
    ]
    oval: Shape = [(False, arc(0.45, flat=1.15)), (True, arc(0.38, flat=1.15))]
    return feathers + _mirrored(feathers) + oval + [(False, arc(rng.uniform(0.15, 0.22), flat=1.2))]


def _hexagon_with_stroke(rng: Generator) -> Shape:
    width = rng.uniform(0.15, 0.2)
    corners = np.array([(0.95 * np.cos(t), 0.95 * np.sin(t)) for t in np.radians(range(-90, 270, 60))])
    letter = stroke(width, (0.34, -0.34), (-0.3, -0.34), (0.3, 0.34), (-0.34, 0.34))
    return [(True, corners), (False, corners * (1 - 1.2 * width)), *letter]


def _shield(rng: Generator) -> Shape:
    waist = rng.uniform(0.55, 0.7)
    outer = poly((-0.75, -0.85), (0, -0.95), (0.75, -0.85), (0.72, 0.1), (waist - 0.15, 0.55), (0, 1))
    outer = np.concatenate([outer, poly((0.15 - waist, 0.55), (-0.72, 0.1))])
    band: Shape = [(False, poly((-0.9, -0.1), (0.9, -0.45), (0.9, -0.2), (-0.9, 0.15)))]
    pale: Shape = [(False, poly((-0.08, 0.05), (0.08, 0.0), (0.08, 1.1), (-0.08, 1.1)))]
    return [(True, outer), *band, *pale]


def _rhombus(rng: Generator) -> Shape:
    wide, hole = rng.uniform(0.66, 0.76), rng.uniform(0.52, 0.6)
    outer = poly((0, -1), (wide, 0), (0, 1), (-wide, 0))
    slit = poly((-1, 0.42), (-0.1, 0.1), (-0.1, 0.3), (-1, 0.62))
    return [
        (True, outer),
        (False, outer * hole),
        (True, outer * (hole - 0.27)),
        (False, slit),
        (False, -slit),
    ]


# An emblem takes a generator because no two badges are cast alike: its proportions vary a little.
BRANDS: dict[str, Callable[[Generator], Shape]] = {
    "Bramvel": _ring_with_bar,
    "Corluna": _linked_arcs,
    "Dastrel": _chevrons,
    "Elmaro": _three_points,
    "Fjordal": _winged_oval,
    "Gantrix": _hexagon_with_stroke,
    "Heliqua": _shield,
    "Jorvane": _rhombus,
}
