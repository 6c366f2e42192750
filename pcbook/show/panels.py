"""Panels: a matplotlib figure as images that stand side by side, and one below the other.

A figure of several panels is cut between them, so that a page can put the panels below each
other where it is too narrow for a row. All frames of an interactive figure have their axes and
their cuts in the same places.
"""

import base64
import io
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

DOTS = 144  # an inch, where the page has 96: sharp on a fine screen too
PHONE = 342  # width in pixels of the text column of a page on a phone
SMALLEST = 10  # height in pixels of the smallest text on a phone


class Layout(NamedTuple):
    """Where the axes stand: their corners (left, bottom, right, top), and the cuts between panels.

    Both are shares of the figure's size. `corners` is None where figures have unlike axes.
    """

    corners: np.ndarray | None
    cuts: tuple[float, ...]


def layout(figures: Iterable[Figure]) -> Layout:
    """The places with room for the axes of all `figures` and for their labels."""
    figures = list(figures)
    for figure in figures:
        if engine := figure.get_layout_engine():
            engine.execute(figure)
    places = [[axes.get_position(original=True).extents for axes in f.axes] for f in figures]
    if len(set(map(len, places))) > 1:
        return Layout(None, ())
    places = np.reshape(places, (len(places), len(places[0]), 4))
    low, high = places.max(0), places.min(0)
    corners = np.concatenate([low[:, :2], high[:, 2:]], axis=1)
    for figure in figures:
        arrange(figure, corners)
    return Layout(corners, _cuts(figures))


def arrange(figure: Figure, corners: np.ndarray | None) -> None:
    """Put the axes in their places, unless the places are for other axes."""
    if corners is None or len(figure.axes) != len(corners):
        return
    figure.set_layout_engine("none")
    for axes, place in zip(figure.axes, corners):
        axes.set_position(Bbox.from_extents(place), which="original")


def images(figure: Figure, cuts: Sequence[float]) -> list[Image.Image]:
    """The panels of a figure, as images on a transparent ground."""
    figure.set_dpi(DOTS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    edges = [round(pixels.shape[1] * cut) for cut in (0, *cuts, 1)]
    return [Image.fromarray(pixels[:, a:b]) for a, b in itertools.pairwise(edges)]


def base64_of(image: Image.Image, format: str, **keywords) -> str:
    """An image as text in an image format that Pillow knows."""
    file = io.BytesIO()
    image.save(file, format, **keywords)
    return base64.b64encode(file.getvalue()).decode()


def png(panels: Iterable[str]) -> str:
    """Panels in base64, side by side, as one PNG in base64."""
    parts = [Image.open(io.BytesIO(base64.b64decode(panel))).convert("RGBA") for panel in panels]
    whole = Image.new("RGBA", (sum(part.width for part in parts), parts[0].height))
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width
    return base64_of(whole, "png")


def check_text(figure: Figure, cuts: Sequence[float]) -> None:
    """Raise the ValueError that names a text too small to be read on a phone."""
    edges = np.array([0, *cuts, 1]) * figure.get_figwidth() * 96
    scales = np.minimum(1, PHONE / np.diff(edges))
    for text in figure.findobj(Text):
        if not (text.get_visible() and text.get_text().strip()) or _of_hidden_axis(text):
            continue
        box = text.get_window_extent()
        middle = (box.x0 + box.x1) / 2 / figure.bbox.width
        scale = scales[np.searchsorted(cuts, middle)]
        size = text.get_fontsize() * 96 / 72 * scale
        if size < SMALLEST:
            raise ValueError(
                f"text {text.get_text()!r}: {size:.1f} pixels on a phone, must be at least "
                f"{SMALLEST}: draw a narrower figure, or larger text"
            )


def _of_hidden_axis(text: Text) -> bool:
    return text.axes is not None and not text.axes.axison


def _cuts(figures: Sequence[Figure]) -> tuple[float, ...]:
    """Where a vertical line between panels crosses nothing in any of the figures."""
    spans = np.array([_spans(figure) for figure in figures])
    left, right = spans[..., 0].min(0), spans[..., 1].max(0)
    cuts, end = [], None
    for i in np.argsort(left):
        if end is not None and left[i] > end:
            cuts.append(float(left[i] + end) / 2)
        end = right[i] if end is None else max(end, right[i])
    return tuple(cuts)


def _spans(figure: Figure) -> list[tuple[float, float]]:
    """From where to where each panel reaches, labels and colour bars included."""
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    spans: list[tuple[float, float]] = []
    for axes, box in zip(figure.axes, boxes):
        span = (box.x0, box.x1)
        if _is_colour_bar(axes) and spans:
            parent = spans.pop()
            span = (min(parent[0], span[0]), max(parent[1], span[1]))
        spans.append(span)
    return [(a / figure.bbox.width, b / figure.bbox.width) for a, b in spans]


def _is_colour_bar(axes: Axes) -> bool:
    return axes.get_label() == "<colorbar>"
