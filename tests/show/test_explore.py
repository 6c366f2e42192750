"""Figures: every frame is there, says what it shows, and reads on light and dark."""

import base64
import io
import itertools
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from pcbook.show.explore import INKS, MOST_FRAMES, Choice, explore, figure, picture

WHITE, BLACK, DARK_PAGE = "#ffffff", "#000000", "#121212"
STEPS = Choice((1, 2, 3), start=2)
RATES = Choice((0.1, 0.2), start=0.1)


def draw(steps=1, rate=0.5):
    """A figure that differs at every choice."""
    fig, axes = figure(width=2.0, height=1.0)
    axes.plot([0, steps], [0, rate])
    return fig


def shown(draw=draw, alt="{steps} at {rate}", caption="A line.", **choices):
    return explore(draw, caption=caption, alt=alt, **choices)


def luminance(colour):
    """Relative luminance, as WCAG 2 defines it."""
    r, g, b = (
        (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in to_rgb(colour)
    )
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def data(exploration):
    """What the script of a figure is given."""
    page = exploration.html
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])


def test_every_combination_of_the_choices_is_a_frame_of_its_own():
    given = data(shown(steps=STEPS, rate=RATES))
    assert len(given["images"]) == 6
    assert len({tuple(frame["panels"]) for frame in given["frames"]}) == 6


def test_frames_stand_in_the_order_of_the_choices_the_last_fastest():
    given = data(shown(steps=STEPS, rate=Choice(np.array([0.1, 0.2]), start=0.1)))
    expected = [f"{s} at {r}" for s, r in itertools.product((1, 2, 3), (0.1, 0.2))]
    assert [frame["alt"] for frame in given["frames"]] == expected


def test_a_picture_that_occurs_twice_is_kept_once():
    given = data(shown(lambda steps: draw(1), alt="{steps}", steps=STEPS))
    assert len(given["images"]) == 1


@pytest.mark.parametrize(
    ("choice", "control", "labels"),
    [
        (Choice((-1, 0.5, 1e-6 + 1), 0.5), "slider", ["−1", "0.5", "1"]),
        (Choice((1e-6, 0.1), 0.1), "slider", ["0.000001", "0.1"]),
        (Choice((1, 20), 1, unit="ms"), "slider", ["1 ms", "20 ms"]),
        (Choice((1, 20), 1, unit="%"), "slider", ["1%", "20%"]),
        (Choice(("trained", "untrained"), "trained"), "buttons", ["trained", "untrained"]),
        (Choice(("a" * 40, "b" * 40), "a" * 40), "menu", ["a" * 40, "b" * 40]),
    ],
)
def test_numbers_get_a_slider_and_names_get_buttons_or_a_menu(choice, control, labels):
    (given,) = data(shown(lambda it: draw(), alt="{it}", it=choice))["choices"]
    assert (given["control"], given["labels"]) == (control, labels)


def test_a_choice_is_called_by_its_label_or_by_its_argument():
    choices = {"of_all": RATES, "rate": RATES._replace(label="learning rate")}
    given = data(shown(lambda of_all, rate: draw(), alt="{rate}", **choices))
    assert [choice["name"] for choice in given["choices"]] == ["of all", "learning rate"]


def test_alt_text_may_be_a_function_of_the_choices():
    page = shown(alt=lambda steps: f"{steps} steps & more", steps=STEPS).html
    assert 'alt="2 steps &amp; more"' in page


def test_text_that_looks_like_markup_stays_text():
    page = shown(caption="<b>A</b>", alt="</script><b>{steps}</b>", steps=STEPS).html
    assert "<b>" not in page
    assert page.count("</script>") == 2


def test_where_no_script_runs_the_start_is_seen_with_its_values_and_its_caption():
    it = shown(steps=STEPS, rate=Choice((0.1, 0.2), start=0.2, unit="s"))
    page = re.sub(r"<(script|style).*?</\1>", "", it.html, flags=re.DOTALL)
    assert re.findall('alt="(.*?)"', page) == ["2 at 0.2"]
    assert "steps: 2; rate: 0.2 s" in page
    assert "<figcaption>A line.</figcaption>" in page
    assert it.frames[2, 0.2].panels[0] in page
    bundle = it._repr_mimebundle_()
    assert bundle["text/plain"] == "Figure with steps: 2; rate: 0.2 s. A line.\n2 at 0.2"
    assert bundle["image/png"]


def test_a_figure_asks_for_nothing_from_elsewhere():
    page = shown(alt="A line.", steps=STEPS).html
    assert not re.search(r"https?:|<link|url\(", page)
    assert all(src.startswith("data:") for src in re.findall('src="(.*?)"', page))


def test_a_still_picture_carries_its_alt_text_and_closes_its_figure():
    fig = draw()
    bundle = picture(fig, caption="A line.", alt="A <line>.")._repr_mimebundle_()
    assert 'alt="A &lt;line&gt;."' in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
    assert bundle["text/plain"] == "Figure. A line.\nA <line>."
    assert not plt.fignum_exists(fig.number)


def test_the_first_of_several_panels_carries_the_words_for_all():
    page = picture(figure(1, 3)[0], caption="Three.", alt="Three axes.").html
    assert re.findall('alt="(.*?)"', page) == ["Three axes.", "", ""]
    assert re.findall(r"\([abc]\)", page) == ["(a)", "(b)", "(c)"]


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
    shown(lambda n: plt.subplots(figsize=(1, 1))[0], alt="{n}", n=STEPS)
    assert plt.rcParams["text.color"] == "black"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice((), 1), "n: values = (): must be a sequence of at least two values"),
        (Choice((1,), 1), "n: values = (1,): must be a sequence of at least two values"),
        (Choice(3, 3), "n: values = 3: must be a sequence"),
        (Choice("abc", "a"), "n: values = 'abc': must be a sequence"),
        (Choice((1, "a"), 1), "n: values = (1, 'a'): must be all numbers or all names"),
        (Choice((True, False), True), "n: values = (True, False): must be all numbers"),
        (Choice((2, 1), 1), "n: values = (2, 1): must be in ascending order"),
        (Choice((1, 1), 1), "n: values = (1, 1): must be in ascending order"),
        (Choice(("a", "a"), "a"), "n: values = ('a', 'a'): must differ from each other"),
        (Choice((1, 2), 3), "n: start = 3: must be one of [1, 2]"),
        (
            Choice(range(MOST_FRAMES + 1), 0),
            f"{MOST_FRAMES + 1} frames: must be at most {MOST_FRAMES}",
        ),
    ],
)
def test_choices_that_make_no_figure_are_named(choice, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        shown(n=choice)


@pytest.mark.parametrize("text", ["", "  "])
def test_a_figure_without_words_is_refused(text):
    with pytest.raises(ValueError, match=r"^caption = .*: must be a sentence that says what is"):
        picture(draw(), caption=text, alt="A line.")
    with pytest.raises(ValueError, match=r"^alt = .*: must be a sentence that says what the"):
        picture(draw(), caption="A line.", alt=text)


def test_alt_text_that_names_no_choice_is_refused():
    with pytest.raises(ValueError, match=r"^alt = '.*rate.*': must name the choices, \{steps\}"):
        shown(alt="{steps} at {rate}", steps=STEPS)


def test_a_draw_that_returns_no_figure_is_told_so():
    with pytest.raises(ValueError, match="figure = None: must be a matplotlib Figure"):
        shown(lambda steps: None, steps=STEPS)


def test_the_picture_for_where_no_html_is_has_the_same_inks_and_all_panels():
    def draw(n):
        fig, (left, right) = figure(1, 2, height=1.5)
        left.bar(range(3), n, color="C1")
        right.bar(range(3), n, color="C2")
        return fig

    with plt.style.context("default"):
        bundle = shown(draw, alt="{n}", n=STEPS)._repr_mimebundle_()
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA"))
    for ink in ("#D55E00", "#009E73"):
        colour = np.array([*(round(255 * c) for c in to_rgb(ink)), 255])
        assert (abs(png.astype(int) - colour) <= 8).all(-1).any()


def test_no_figure_stays_open_however_many_choices_there_are(recwarn):
    plt.close("all")
    choices = dict.fromkeys("abcd", Choice((0, 1), 0))
    shown(lambda **chosen: draw(1 + sum(chosen.values())), alt="{a}{b}{c}{d}", **choices)
    assert not plt.get_fignums() and not recwarn
