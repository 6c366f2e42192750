"""Energy controls: which conclusions of the emergence experiment survive a control?

A measure shows prediction only if a network that cannot predict fails it. Three cannot: one
without recurrence (W = 0), an untrained one, one that was trained on images in random order.
The published test for error units passes all three, because it compares different *images*.
The sound test changes nothing but the context,

    surprise = mean |a| of an image after a history that led elsewhere
             - mean |a| of the same image after its own,

and is read as an effect size: with thousands of images every difference is significant.
The same measures then ask other networks, other orders and other ways to stop training
(after Ali, Ahmad, de Groot, van Gerven & Kietzmann 2022).

`context` has the two tests, `conclusions` what follows from a trained network, `stopping` the
rules for stopping, `networks` the other networks, `variants` trains them, and `claims` has the
criteria of the chapter's claims.

Chapter: book/emergence/energy_controls.ipynb
"""

from pcbook.emergence.energy_controls import claims
from pcbook.emergence.energy_controls.conclusions import Conclusions, conclude, table
from pcbook.emergence.energy_controls.context import Surprise, error_units, surprise, swapped
from pcbook.emergence.energy_controls.networks import (
    BIAS_ONLY,
    BIASED,
    GRU,
    INHIBITORY,
    LSTM,
    TWO_LAYERS,
    latent,
    leaky,
)
from pcbook.emergence.energy_controls.stopping import Stop, Stopping, early_stop, watch
from pcbook.emergence.energy_controls.variants import VARIANTS, judge, vary

__all__ = [
    "BIASED",
    "BIAS_ONLY",
    "GRU",
    "INHIBITORY",
    "LSTM",
    "TWO_LAYERS",
    "VARIANTS",
    "Conclusions",
    "Stop",
    "Stopping",
    "Surprise",
    "claims",
    "conclude",
    "early_stop",
    "error_units",
    "judge",
    "latent",
    "leaky",
    "surprise",
    "swapped",
    "table",
    "vary",
    "watch",
]
