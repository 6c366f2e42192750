"""Figures that a reader can question.

A figure with sliders usually needs a running Python behind it. Here every frame is drawn
beforehand: `explore(draw, ...)` calls `draw` once for each combination of the choices. The
frames and the script that shows them are part of the output, so the same figure works in a
live notebook, in a notebook opened again, in an exported one and on a page. Where no script
runs, the frame at which the reader starts stands in.

    figure, axes = pcbook.explore.figure()
    axes.plot(energy)
    picture(figure, caption="Energy against steps.", alt="The energy falls from 3 to 0.2.")

    explore(
        draw_energy,
        rate=Choice((0.01, 0.1, 1.0), start=0.1),
        network=Choice(("trained", "untrained"), start="trained"),
        caption="Energy against inference steps. Try a rate of 1: it diverges.",
        alt="Energy of the {network} network at a rate of {rate}.",
    )

The inks read on a light page and on a dark one, and to the colour blind.
"""

import html
import itertools
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from pcbook.show import panels

MOST_FRAMES = 400
HERE = Path(__file__).parent
INKS = HERE / "inks.mplstyle"
ONE_PANEL, SEVERAL_PANELS = 5.0, 6.4  # widths in inches
LETTERS = "abc"  # of the panels of a figure, where it has no more than these
BUTTONS = 60  # characters that buttons may have in all, before they become a menu


class Choice(NamedTuple):
    """What a reader may choose: `values`, numbers in ascending order or names.

    `start` is the value of the first frame, `unit` is written after each number, and `label`
    is what the choice is called, by default the name of the argument.
    """

    values: Sequence | np.ndarray
    start: Any
    unit: str = ""
    label: str = ""


def figure(
    rows: int = 1, columns: int = 1, *, width: float | None = None, height: float = 3.2, **keywords
):
    """`plt.subplots` in the book's inks: a figure of `width` by `height` inches, and its axes.

    A single column of panels is by default narrower than several, which a phone shows one
    below the other. The inks become matplotlib's style for the rest of the session, so that a
    legend or a note added later is as readable as the axes made here.
    """
    plt.style.use(INKS)
    width = width or (ONE_PANEL if columns == 1 else SEVERAL_PANELS)
    return plt.subplots(rows, columns, figsize=(width, height), **keywords)


def picture(figure: Figure, *, caption: str, alt: str) -> "Exploration":
    """A still figure, with its caption and the sentence that replaces it where it is not seen.

    Raises ValueError for an empty `caption` or `alt`, and for text too small on a phone.
    """
    return explore(lambda: figure, caption=caption, alt=alt)


def explore(
    draw: Callable[..., Figure], *, caption: str, alt: str | Callable[..., str], **choices: Choice
) -> "Exploration":
    """A figure with a control for each of the `choices`: a slider, buttons or a menu.

    `draw(**values)` returns the matplotlib figure at one value of every choice. `caption` says
    what is drawn and what to try. `alt` says in a sentence what a frame shows: a text in which
    `{name}` stands for a choice, or a function of the choices. The axes stand still as the
    controls move: where the frames at the ends have room for them and their labels.

    Raises ValueError for a choice, caption or alt that is not as described, for more than
    `MOST_FRAMES` frames, and for text that is smaller than 10 pixels on a phone.
    """
    _check_sentence("caption", caption, "says what is drawn")
    _check_choices(choices)
    with plt.style.context(INKS):
        combinations = _combinations(choices, lambda choice: choice.values)
        ends = _combinations(choices, lambda choice: (choice.values[0], choice.values[-1]))
        figures = {chosen: _drawn(draw, choices, chosen) for chosen in ends}
        layout = panels.layout(figures.values())
        for end in figures.values():
            panels.check_text(end, layout.cuts)
        frames = {}
        for chosen in combinations:
            figure = figures.pop(chosen, None) or _drawn(draw, choices, chosen)
            words = _words(alt, dict(zip(choices, chosen)))
            frames[chosen] = _frame(figure, layout, words)
    return Exploration(choices, frames, caption)


def glue(name: str, text: str) -> None:
    """Keep a computed `text` under a `name`, for the prose to show by {glue:text}`name`."""
    mime = "application/papermill.record/"
    kept = {"scrapbook": {"name": name, "mime_prefix": mime}}
    display({f"{mime}text/plain": repr(text)}, raw=True, metadata=kept)


class Frame(NamedTuple):
    """One picture of a figure: its alt text, and its panels as WebP in base64 with their widths."""

    alt: str
    panels: tuple[str, ...]
    widths: tuple[int, ...]


class Exploration:
    """A figure with its controls, as HTML that needs no kernel and no other file.

    `frames` maps one value of every choice to a frame.
    """

    def __init__(self, choices: dict[str, Choice], frames: dict[tuple, Frame], caption: str):
        self.choices = choices
        self.frames = frames
        self.caption = caption

    @property
    def start(self) -> Frame:
        """The frame that is seen first, and where no script runs."""
        return self.frames[tuple(choice.start for choice in self.choices.values())]

    @property
    def html(self) -> str:
        """The figure as HTML, with its style and, where there are choices, its script."""
        caption = html.escape(self.caption)
        return (
            f'<figure class="pcbook-explore"><style>{_asset("explore.css")}</style>'
            f'<div class="pcbook-controls"></div>{self._panels()}'
            f'<p class="pcbook-values">{html.escape(self._chosen())}</p>'
            '<p class="pcbook-said" aria-live="polite"></p>'
            f"<figcaption>{caption}</figcaption>{self._script()}</figure>"
        )

    def _panels(self) -> str:
        """The panels of the start, with letters; the first carries the alt text for all."""
        alts = [html.escape(self.start.alt)] + [""] * (len(self.start.panels) - 1)
        lettered = 1 < len(alts) <= len(LETTERS)
        letters = [f"<b>({letter})</b>" for letter in LETTERS] if lettered else [""] * len(alts)
        # The two class names keep the theme from bleaching the figure on a dark page.
        images = (
            f'<span>{letter}<img class="pcbook-figure dark-light" width="{width}" alt="{alt}" '
            f'src="data:image/webp;base64,{panel}"></span>'
            for letter, alt, panel, width in zip(
                letters, alts, self.start.panels, self.start.widths
            )
        )
        return f'<div class="pcbook-panels">{"".join(images)}</div>'

    def _script(self) -> str:
        """The frames as JSON, each picture once, and the script that shows them."""
        if not self.choices:
            return ""
        images = list(dict.fromkeys(itertools.chain(*(f.panels for f in self.frames.values()))))
        places = {image: place for place, image in enumerate(images)}
        frames = [
            {"alt": frame.alt, "panels": [places[panel] for panel in frame.panels]}
            for frame in self.frames.values()
        ]
        choices = [_control(name, choice) for name, choice in self.choices.items()]
        data = json.dumps({"choices": choices, "frames": frames, "images": images})
        data = data.replace("<", "\\u003c")
        script = _asset("explore.js")
        return f'<script type="application/json">{data}</script><script>{script}</script>'

    def _chosen(self) -> str:
        controls = [_control(name, choice) for name, choice in self.choices.items()]
        return "; ".join(f"{c['name']}: {c['labels'][c['start']]}" for c in controls)

    def _repr_mimebundle_(self, **_):
        chosen = f" with {self._chosen()}" if self.choices else ""
        return {
            "text/plain": f"Figure{chosen}. {self.caption}\n{self.start.alt}",
            "text/html": self.html,
            "image/png": panels.png(self.start.panels),
        }


def _drawn(draw: Callable[..., Figure], choices: dict[str, Choice], chosen: tuple) -> Figure:
    """The figure at the `chosen` values, taken from pyplot, which keeps all figures open."""
    figure = draw(**dict(zip(choices, chosen)))
    if not isinstance(figure, Figure):
        raise ValueError(f"figure = {figure!r}: must be a matplotlib Figure")
    plt.close(figure)
    return figure


def _words(alt: str | Callable[..., str], chosen: dict) -> str:
    """The alt text of the frame at the `chosen` values."""
    if callable(alt):
        return alt(**chosen)
    try:
        return alt.format(**chosen)
    except (KeyError, IndexError):
        names = ", ".join(f"{{{name}}}" for name in chosen)
        raise ValueError(f"alt = {alt!r}: must name the choices, {names}") from None


def _frame(figure: Figure, layout: panels.Layout, alt: str) -> Frame:
    """The frame that a figure makes."""
    _check_sentence("alt", alt, "says what the figure shows")
    panels.arrange(figure, layout.corners)
    images = panels.images(figure, layout.cuts)
    coded = (
        panels.base64_of(image.quantize(256), "webp", lossless=True, method=1) for image in images
    )
    widths = (round(image.width * 96 / panels.DOTS) for image in images)
    return Frame(alt, tuple(coded), tuple(widths))


def _combinations(choices: dict[str, Choice], values: Callable) -> list[tuple]:
    """All combinations of the `values` of each choice, the last of them fastest."""
    return list(dict.fromkeys(itertools.product(*map(values, choices.values()))))


def _control(name: str, choice: Choice) -> dict[str, Any]:
    """What the script needs to know of a choice."""
    labels = [_label(value, choice.unit) for value in choice.values]
    if is_numeric(choice.values):
        control = "slider"
    else:
        control = "buttons" if sum(map(len, labels)) <= BUTTONS else "menu"
    return {
        "name": choice.label or name.replace("_", " "),
        "labels": labels,
        "start": list(choice.values).index(choice.start),
        "control": control,
    }


def _label(value, unit: str) -> str:
    """A value as a reader sees it, without an exponent where the digits are few."""
    if not isinstance(value, Real):
        return str(value)
    text = f"{value:g}"
    digits = np.format_float_positional(value, trim="-")
    if "e" in text and len(digits) <= 8:
        text = digits
    separator = "" if unit in ("", "%", "°", "×") else " "
    return f"{text.replace('-', '−')}{separator}{unit}"


@cache
def _asset(name: str) -> str:
    """The text of a file that stands beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


# --- what authors are told ---


def _check_sentence(name: str, text, purpose: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} = {text!r}: must be a sentence that {purpose}")


def _check_choices(choices: dict) -> None:
    for name, choice in choices.items():
        check_choice(name, choice)
    frames = math.prod(len(choice.values) for choice in choices.values())
    if frames > MOST_FRAMES:
        raise ValueError(f"choices make {frames} frames: must be at most {MOST_FRAMES}")


def check_choice(name: str, choice) -> None:
    """Raise the ValueError that tells an author what is wrong with a choice."""
    if not isinstance(choice, Choice):
        raise ValueError(f"{name} = {choice!r}: must be a Choice(values, start=...)")
    values = choice.values
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) < 2:
        raise ValueError(f"{name}: values = {values!r}: must be a sequence of at least two values")
    if not is_numeric(values) and not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name}: values = {values!r}: must be all numbers or all names")
    if is_numeric(values) and any(a >= b for a, b in itertools.pairwise(values)):
        raise ValueError(f"{name}: values = {values!r}: must be in ascending order")
    if len(set(values)) < len(values):
        raise ValueError(f"{name}: values = {values!r}: must differ from each other")
    if choice.start not in list(values):
        raise ValueError(f"{name}: start = {choice.start!r}: must be one of {list(values)}")


def is_numeric(values: Sequence | np.ndarray) -> bool:
    """Whether all of the values of a choice are numbers, not names."""
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
