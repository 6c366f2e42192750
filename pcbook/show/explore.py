"""Figures that a reader can question.

A figure with sliders usually needs a running Python behind it. Here every answer
is drawn beforehand: `explore(draw, ...)` calls `draw` once for each combination
of the choices and links the sliders to the pictures in the browser, so the same
figure works in a live notebook and on a printed-out web page with nothing behind
it. Where no script runs, the picture of the first combination stands in.

    figure, axes = pcbook.explore.figure()
    axes.plot(energy)
    picture(figure, alt="The energy falls from 3 to 0.2 in 20 steps.")

    explore(draw_energy, steps=(0, 5, 10, 20), alt="Energy after {steps} steps.")

The inks read on a light page and on a dark one, and to the colour blind.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image
from tqdm import tqdm

MOST_FRAMES = 400
DOTS = 144  # an inch, where the page has 96: sharp on a fine screen too
INKS = Path(__file__).with_name("inks.mplstyle")
SLIDERS = Path(__file__).with_name("sliders.js").read_text(encoding="utf-8")


def figure(rows: int = 1, columns: int = 1, *, width: float = 6.4, height: float = 3.2, **keywords):
    """`plt.subplots` in the book's inks: a figure of `width` by `height` inches, and its axes.

    The inks become matplotlib's style for the rest of the session, so that a
    legend or a note added later is as readable as the axes made here.
    """
    plt.style.use(INKS)
    return plt.subplots(rows, columns, figsize=(width, height), **keywords)


def picture(figure: Figure, *, alt: str) -> "Picture":
    """A still figure, with the sentence that a reader who cannot see it hears."""
    return Picture(figure, alt)


def explore(
    draw: Callable[..., Figure], *, alt: str | Callable[..., str], **choices
) -> "Exploration":
    """A figure with one slider for each of the `choices`, which are sequences of values.

    `draw(**values)` returns the matplotlib figure at one value of every choice;
    the first value of each is where the reader starts. `alt` says in a sentence
    what a frame shows: a text in which `{name}` stands for a choice, or a function
    of the choices. The axes stand still as the sliders move: where the frames at the
    sliders' ends have room for them and their labels.
    """
    _check(choices)
    frames = {}
    combinations = list(itertools.product(*choices.values()))
    ends = itertools.product(*((values[0], values[-1]) for values in choices.values()))
    with plt.style.context(INKS):
        figures = {values: _figure(draw(**dict(zip(choices, values)))) for values in ends}
        places = _room(figures.values())
        for values in tqdm(combinations, desc="drawing", unit="frame", delay=2, leave=False):
            named = dict(zip(choices, values))
            sentence = alt(**named) if callable(alt) else alt.format(**named)
            figure = figures[values] if values in figures else _figure(draw(**named))
            _place(figure, places)
            frames[values] = Picture(figure, sentence)
    return Exploration(choices, frames)


def glue(name: str, text: str) -> None:
    """Keep a computed `text` under a `name`, for the prose to show by {glue:text}`name`."""
    mime = "application/papermill.record/"
    kept = {"scrapbook": {"name": name, "mime_prefix": mime}}
    display({f"{mime}text/plain": repr(text)}, raw=True, metadata=kept)


class Picture:
    """A drawn figure: an image that carries its alt text wherever it is shown."""

    def __init__(self, figure, alt: str):
        if not isinstance(alt, str) or not alt.strip():
            raise ValueError(f"alt = {alt!r}: must be a sentence that says what the figure shows")
        self.alt = alt
        self.width = round(_figure(figure).get_figwidth() * 96)
        self.webp = _base64(_drawn(figure).quantize(256), "webp", lossless=True, method=1)

    @property
    def html(self) -> str:
        # The two class names keep the theme from bleaching the figure on a dark page.
        return (
            f'<img class="pcbook-figure dark-light" width="{self.width}" '
            f'alt="{html.escape(self.alt)}" src="data:image/webp;base64,{self.webp}">'
        )

    def _repr_mimebundle_(self, **_):
        return {
            "text/plain": f"Figure: {self.alt}",
            "text/html": self.html,
            "image/png": _base64(Image.open(io.BytesIO(base64.b64decode(self.webp))), "png"),
        }


class Exploration(ipywidgets.VBox):
    """Sliders above a stack of pictures, linked in the browser and not in Python."""

    def __init__(self, choices: dict, frames: dict[tuple, Picture]):
        self.choices = choices
        self.frames = frames
        width = f"{max(map(len, choices)) + 1}ch"  # an m is wider than a 0
        self.sliders = [_slider(name, values, width) for name, values in choices.items()]
        self._plain = {"layout": ipywidgets.Layout(), "style": ipywidgets.HTML().style}
        super().__init__([_words(), *self.sliders, self._stack(())])
        self.add_class("pcbook-sliders")

    def _stack(self, chosen: tuple) -> ipywidgets.Widget:
        """The frames that begin with the `chosen` values: stacks within stacks, one a slider."""
        depth = len(chosen)
        if depth == len(self.sliders):
            return ipywidgets.HTML(self.frames[chosen].html, **self._plain)
        values = list(self.choices.values())[depth]
        stack = ipywidgets.Stack([self._stack((*chosen, v)) for v in values], selected_index=0)
        ipywidgets.jslink((self.sliders[depth], "index"), (stack, "selected_index"))
        return stack

    def _repr_mimebundle_(self, **keywords):
        """The widget for a kernel; for a page with none, the first frame and the widget's place."""
        widget = super()._repr_mimebundle_(**keywords)
        first = next(iter(self.frames.values()))._repr_mimebundle_()
        place = _WIDGET_PLACE.format(model_id=self.model_id)
        return (
            widget
            | first
            | {
                "text/plain": f"Interactive figure: {self._summary()}. {first['text/plain']}",
                "text/html": f'<div class="pcbook-explore">{first["text/html"]}{place}</div>',
            }
        )

    def _summary(self) -> str:
        return ", ".join(
            f"{name} = {_label(values[0])} to {_label(values[-1])} ({len(values)} values)"
            for name, values in self.choices.items()
        )


_WIDGET_PLACE = (
    '<script type="application/vnd.jupyter.widget-view+json">'
    '{{"version_major": 2, "version_minor": 0, "model_id": "{model_id}"}}</script>'
)


def _check(choices: dict) -> None:
    """Raise the ValueError that tells an author what is wrong with the choices."""
    if not choices:
        raise ValueError("choices = {}: must name at least one, as in steps=(0, 5, 10)")
    for name, values in choices.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) < 2:
            raise ValueError(f"{name} = {values!r}: must be a sequence of at least two values")
    frames = math.prod(len(values) for values in choices.values())
    if frames > MOST_FRAMES:
        raise ValueError(f"choices make {frames} frames: must be at most {MOST_FRAMES}")


def _slider(name: str, values, name_width: str) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=[(_label(value), place) for place, value in enumerate(values)],
        description=name.replace("_", " "),
        style={"description_width": name_width},
        layout={"width": "auto", "max_width": "32em"},
    )


def _words() -> ipywidgets.HTML:
    """The script that names the sliders to a screen reader.

    A widget can bring no script of its own, but an image can, and it loads wherever
    the widget is shown.
    """
    empty = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
    return ipywidgets.HTML(
        f'<img hidden alt="" src="{empty}" onload="{html.escape(SLIDERS)}">',
        layout={"display": "none"},
    )


def _label(value) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _figure(drawn) -> Figure:
    """What was drawn, taken from pyplot, which keeps all figures open."""
    if not isinstance(drawn, Figure):
        raise ValueError(f"figure = {drawn!r}: must be a matplotlib Figure")
    plt.close(drawn)
    return drawn


def _room(figures) -> np.ndarray | None:
    """The corners (left, bottom, right, top) of each axes for which all `figures` have room.

    None where the figures have unlike numbers of axes.
    """
    for figure in figures:
        if layout := figure.get_layout_engine():
            layout.execute(figure)
    places = [[axes.get_position(original=True).extents for axes in f.axes] for f in figures]
    if len(set(map(len, places))) > 1:
        return None
    places = np.reshape(places, (len(places), len(places[0]), 4))
    low, high = places.max(0), places.min(0)
    return np.concatenate([low[:, :2], high[:, 2:]], axis=1)


def _place(figure: Figure, places: np.ndarray | None) -> None:
    """Put the axes in their places, unless they are not those that the places are for."""
    if places is None or len(figure.axes) != len(places):
        return
    figure.set_layout_engine("none")
    for axes, corners in zip(figure.axes, places):
        axes.set_position(Bbox.from_extents(corners), which="original")


def _drawn(figure: Figure) -> Image.Image:
    """The figure as an image on a transparent ground."""
    figure.set_dpi(DOTS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def _base64(image: Image.Image, format: str, **keywords) -> str:
    file = io.BytesIO()
    image.save(file, format, **keywords)
    return base64.b64encode(file.getvalue()).decode()
