"""Live figures: the kernel draws what the controls say, and the right control for each choice."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from pcbook.show.explore import Choice
from pcbook.show.live import live


@pytest.fixture
def drawn():
    return []


@pytest.fixture
def draw(drawn):
    def figure(**values):
        drawn.append(values)
        return plt.figure()

    return figure


def controls(found):
    return {control.description: control for control in found.children[:-1]}


def test_numbers_become_sliders_from_the_least_to_the_greatest_and_names_buttons(draw):
    found = controls(
        live(
            draw,
            rate=Choice((0.1, 0.5, 2.0), start=0.5),
            inner_steps=Choice((1, 5, 20), start=5),
            network=Choice(("trained", "untrained"), start="trained"),
        )
    )
    assert isinstance(found["rate"], ipywidgets.FloatSlider)
    assert (found["rate"].min, found["rate"].max, found["rate"].value) == (0.1, 2.0, 0.5)
    assert isinstance(found["inner steps"], ipywidgets.IntSlider)
    assert found["network"].options == ("trained", "untrained")


def test_a_moved_control_draws_the_figure_at_its_value_though_no_frame_has_it(draw, drawn):
    before = plt.get_fignums()
    figure = live(draw, rate=Choice((0.0, 0.5, 1.0), start=0.5))
    figure.update()
    controls(figure)["rate"].value = 0.25
    assert drawn[-1] == {"rate": 0.25}
    assert plt.get_fignums() == before, "figures stay open"


def test_a_choice_that_no_figure_takes_is_named(draw):
    with pytest.raises(ValueError, match="rate: start = 3: must be one of"):
        live(draw, rate=Choice((0.0, 1.0), start=3))
