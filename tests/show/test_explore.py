"""Figures: every frame is there, says what it shows, and reads on light and dark."""

import base64
import io
import json
import re

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from pcbook.show.explore import INKS, MOST_FRAMES, explore, figure, picture

WHITE, BLACK, DARK_PAGE = "#ffffff", "#000000", "#121212"


def draw(steps=1, rate=0.5):
    """A figure that differs at every choice."""
    fig, axes = figure(width=2.0, height=1.0)
    axes.plot([0, steps], [0, rate])
    return fig


def luminance(colour):
    """Relative luminance, as WCAG 2 defines it."""
    r, g, b = (
        (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in to_rgb(colour)
    )
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def images(widget):
    """The frames' HTML, in the order of the choices."""
    if isinstance(widget, ipywidgets.HTML):
        return [widget.value] if "pcbook-figure" in widget.value else []
    return [image for child in getattr(widget, "children", ()) for image in images(child)]


def test_every_combination_of_the_choices_is_a_frame_of_its_own():
    shown = images(explore(draw, alt="{steps} at {rate}", steps=(1, 2, 3), rate=(0.1, 0.2)))
    assert len(set(shown)) == 6


def test_a_slider_shows_the_frame_of_its_value():
    it = explore(draw, alt="{steps} at {rate}", steps=(1, 2, 3), rate=np.array([0.1, 0.2]))
    stack = it.children[-1]
    steps, rate = it.sliders
    assert [label for label, _ in steps.options] == ["1", "2", "3"]
    alts = [
        [re.search('alt="(.*?)"', f.value)[1] for f in inner.children] for inner in stack.children
    ]
    assert alts == [[f"{s} at {r}" for r in (0.1, 0.2)] for s in (1, 2, 3)]
    assert links(steps, "index", stack) and all(links(rate, "index", s) for s in stack.children)


def links(slider, name, stack):
    """Whether the browser keeps the stack on the slider's place."""
    made = [
        w
        for w in ipywidgets.Widget.get_manager_state()["state"].values()
        if "Link" in w["model_name"]
    ]
    ends = [f"IPY_MODEL_{slider.model_id}", name, f"IPY_MODEL_{stack.model_id}", "selected_index"]
    return ends in [[*w["state"]["source"], *w["state"]["target"]] for w in made]


def test_alt_text_may_be_a_function_of_the_choices():
    it = explore(draw, alt=lambda steps: f"{steps} steps & more", steps=(1, 2))
    assert 'alt="2 steps &amp; more"' in images(it)[1]


def test_the_first_frame_stands_in_where_scripts_do_not_run():
    it = explore(draw, alt="{steps} steps", steps=(5, 6))
    bundle = it._repr_mimebundle_()
    assert images(it)[0] in bundle["text/html"]
    place = re.search("<script.*?>(.*)</script>", bundle["text/html"])[1]
    assert json.loads(place)["model_id"] == it.model_id
    assert bundle["image/png"]
    assert bundle["text/plain"] == "Interactive figure: steps = 5 to 6 (2 values). Figure: 5 steps"


def test_a_still_picture_carries_its_alt_text_and_closes_its_figure():
    fig = draw()
    bundle = picture(fig, alt="A <line>.")._repr_mimebundle_()
    assert 'alt="A &lt;line&gt;."' in bundle["text/html"]
    assert bundle["text/plain"] == "Figure: A <line>."
    assert not plt.fignum_exists(fig.number)


def test_inks_stand_out_from_light_and_dark_and_text_from_both_grounds():
    with plt.style.context(INKS):
        inks = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        text = [plt.rcParams[name] for name in ("text.color", "axes.labelcolor", "xtick.color")]
    for ground in (WHITE, BLACK, DARK_PAGE):
        assert min(contrast(ink, ground) for ink in inks) >= 3
    for ground in (WHITE, BLACK):
        assert min(contrast(colour, ground) for colour in text) >= 4.5


def test_drawing_leaves_matplotlibs_own_style_alone():
    plt.rcdefaults()
    explore(lambda n: plt.subplots(figsize=(1, 1))[0], alt="{n}", n=(1, 2))
    assert plt.rcParams["text.color"] == "black"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "choices = {}: must name at least one"),
        ({"steps": ()}, "steps = (): must be a sequence of at least two values"),
        ({"steps": (1,)}, "steps = (1,): must be a sequence of at least two values"),
        ({"steps": 3}, "steps = 3: must be a sequence"),
        ({"name": "abc"}, "name = 'abc': must be a sequence"),
        (
            {"steps": range(MOST_FRAMES + 1)},
            f"{MOST_FRAMES + 1} frames: must be at most {MOST_FRAMES}",
        ),
    ],
)
def test_choices_that_make_no_figure_are_named(choices, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        explore(draw, alt="A line.", **choices)


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_figure_without_alt_text_is_refused(alt):
    with pytest.raises(ValueError, match="must be a sentence that says what the figure shows"):
        picture(draw(), alt=alt)
    with pytest.raises(ValueError, match="must be a sentence that says what the figure shows"):
        explore(draw, alt=alt, steps=(1, 2))


def test_a_draw_that_returns_no_figure_is_told_so():
    with pytest.raises(ValueError, match="figure = None: must be a matplotlib Figure"):
        explore(lambda steps: None, alt="Nothing.", steps=(1, 2))


def test_axes_stand_still_with_room_for_the_labels_at_either_end():
    drawn = []

    def draw(top, title):
        fig, ax = figure()
        ax.set(ylim=(0, top), ylabel="energy", title=title)
        drawn.append(ax)
        return fig

    explore(draw, alt="Up to {top}.", top=(1, 10, 10**4), title=("a", "b", "c\nd"))
    assert len(drawn) == 9
    assert len({tuple(ax.get_position().extents.round(6)) for ax in drawn}) == 1
    for ax in drawn:
        box = ax.get_tightbbox().transformed(ax.figure.transFigure.inverted())
        assert 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1


def test_frames_with_unlike_axes_are_laid_out_each_for_itself():
    widths = {}

    def draw(axes):
        fig, _ = figure(1, axes)
        widths[axes] = lambda: fig.axes[0].get_position().width
        return fig

    explore(draw, alt="{axes} axes.", axes=(1, 2, 3))
    assert 1 > widths[1]() > 1.5 * widths[2]() > 0 and widths[2]() > 1.2 * widths[3]()


def test_the_picture_for_where_no_widget_is_has_the_same_inks():
    def draw(n):
        fig, ax = figure(width=2.0, height=1.0)
        ax.bar(range(3), n, color="C1")
        return fig

    with plt.style.context("default"):
        first, *_ = explore(draw, alt="{n}", n=(1, 2)).frames.values()
        png = Image.open(io.BytesIO(base64.b64decode(first._repr_mimebundle_()["image/png"])))
    vermilion = np.array([*(round(255 * c) for c in to_rgb("#D55E00")), 255])
    assert (abs(np.asarray(png.convert("RGBA")).astype(int) - vermilion) <= 8).all(-1).any()


def test_no_figure_stays_open_however_many_sliders_there_are(recwarn):
    plt.close("all")
    choices = dict.fromkeys("abcde", (0, 1))
    explore(lambda **chosen: draw(1 + sum(chosen.values())), alt="{a}{b}{c}{d}{e}", **choices)
    assert not plt.get_fignums() and not recwarn
