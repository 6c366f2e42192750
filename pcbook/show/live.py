"""Figures that a running kernel draws anew, at values for which no frame was drawn.

`explore` draws its frames beforehand, so that a figure works on a page. In a live notebook a
reader may want the values in between:

    live(draw_nudge, nudge=Choice((1e-6, 3.0), start=0.1))

The controls are ipywidgets, which need the kernel: a notebook that is opened again has to be
run again.
"""

from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from pcbook.show.explore import INKS, Choice, check_choice, is_numeric


def live(draw: Callable[..., Figure], **choices: Choice) -> ipywidgets.interactive:
    """A figure with a control for each of the `choices`, drawn again whenever one is moved.

    `draw(**values)` returns the matplotlib figure. A choice of numbers becomes a slider from the
    least to the greatest of its values, in whole numbers if they all are; one of names becomes a
    row of buttons. Raises ValueError for a choice that `explore` refuses.
    """
    for name, choice in choices.items():
        check_choice(name, choice)

    def show(**values):
        with plt.style.context(INKS):
            figure = draw(**values)
        plt.close(figure)
        display(figure)

    return ipywidgets.interactive(show, **{n: _control(n, c) for n, c in choices.items()})


def _control(name: str, choice: Choice):
    label = choice.label or name.replace("_", " ")
    start = choice.start
    if not is_numeric(choice.values):
        return ipywidgets.ToggleButtons(options=choice.values, value=start, description=label)
    least, greatest = choice.values[0], choice.values[-1]
    whole = all(isinstance(value, int) for value in choice.values)
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    step = 1 if whole else (greatest - least) / 200
    options = {"min": least, "max": greatest, "value": start, "step": step}
    return slider(
        description=label,
        continuous_update=False,
        readout_format="d" if whole else ".3g",
        **options,
    )
