"""Panels: axes that stand still, cuts that cross nothing, text that can be read on a phone."""

import numpy as np
import pytest

from pcbook.show import panels
from pcbook.show.explore import Choice, explore, figure, picture


def test_axes_stand_still_with_room_for_the_labels_at_either_end():
    drawn = []

    def draw(top, title):
        fig, ax = figure()
        ax.set(ylim=(0, top), ylabel="energy", title=title)
        drawn.append(ax)
        return fig

    choices = {"top": Choice((1, 10, 10**4), 10), "title": Choice(("a", "b", "c\nd"), "a")}
    explore(draw, caption="Axes.", alt="Up to {top}.", **choices)
    assert len(drawn) == 9
    assert len({tuple(ax.get_position().extents.round(6)) for ax in drawn}) == 1
    for ax in drawn:
        box = ax.get_tightbbox().transformed(ax.figure.transFigure.inverted())
        assert 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1


def test_frames_with_unlike_axes_are_laid_out_each_for_itself():
    widths = {}

    def draw(axes):
        fig, _ = figure(1, axes, width=5.0)
        widths[axes] = lambda: fig.axes[0].get_position().width
        return fig

    shown = explore(draw, caption="Axes.", alt="{axes} axes.", axes=Choice((1, 2), 1))
    assert 1 > widths[1]() > 1.5 * widths[2]() > 0
    assert [len(frame.panels) for frame in shown.frames.values()] == [1, 1]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_row_of_axes_is_cut_into_panels_where_there_is_no_ink(columns):
    fig, axes = figure(1, columns, width=6.4, height=2.0, squeeze=False)
    for ax in axes.ravel():
        ax.set(xlabel="step", ylabel="energy")
    layout = panels.layout([fig])
    images = [np.asarray(image) for image in panels.images(fig, layout.cuts)]
    assert len(images) == columns
    assert abs(sum(image.shape[1] for image in images) - 6.4 * panels.DOTS) <= 1
    for image in images:
        ink = image[..., 3]
        assert ink.any()
        assert not any(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


def test_axes_below_each_other_are_one_panel():
    fig, _ = figure(2, 1)
    assert panels.layout([fig]).cuts == ()


def test_a_colour_bar_stays_with_its_image():
    fig, (left, _) = figure(1, 2)
    fig.colorbar(left.imshow(np.eye(3)), ax=left)
    assert len(panels.layout([fig]).cuts) == 1


def test_all_frames_are_cut_in_the_same_place():
    shown = explore(draw_titled, caption="Two.", alt="{n}", n=Choice((1, 2, 3), 1))
    assert len({frame.widths for frame in shown.frames.values()}) == 1


def draw_titled(n):
    fig, (left, right) = figure(1, 2, height=2.0)
    left.set(ylabel="energy" * n)
    right.set(ylim=(0, 10**n))
    return fig


@pytest.mark.parametrize(
    ("width", "points", "readable"),
    [(5.0, 11, True), (5.0, 8, False), (3.0, 8, True), (3.0, 7, False), (6.4, 11, False)],
)
def test_text_that_is_too_small_on_a_phone_is_refused(width, points, readable):
    # A page on a phone has 342 pixels for a figure; a figure has 96 in an inch, 72 points.
    assert readable == (points * 96 / 72 * min(1, 342 / (96 * width)) >= 10)
    fig, ax = figure(width=width)
    ax.set_title("fine print", fontsize=points)
    if readable:
        picture(fig, caption="A title.", alt="A title.")
    else:
        with pytest.raises(ValueError, match=r"^text '.*': \d\.\d pixels on a phone"):
            picture(fig, caption="A title.", alt="A title.")
