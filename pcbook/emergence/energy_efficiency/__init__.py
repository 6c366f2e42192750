"""Energy efficiency: a network that only saves energy learns to predict.

One recurrent layer. Each pixel drives one unit, every unit reaches every unit, and there
is neither bias nor input weight:

    a_t = h_{t-1} W + x_t,        h_t = relu(a_t),        h_0 = 0,

with W[i, j] the synapse from i to j. Training lowers what it costs to run, the mean of
|a| over units, summed over ten steps, and nothing else: there is no target. The images
come in an order (0, 1, 2, ...), so the cheapest thing to send to a unit is minus the
input that is about to arrive. Prediction is not asked for: it is how energy is saved
(Ali, Ahmad, de Groot, van Gerven & Kietzmann 2022).

    trained = train(images, labels, epochs=400, rate=1e-3, seeds=range(5))
    a = preactivations(trained.params[0], images[sequences(key, labels)])

Arrays of a sequence are (steps, batch, units). `images` and `orders` make the sequences,
`network` has the equations, `training` lowers the energy, `measures` asks what was learned, and
`claims` has the criteria of the chapter's claims.

Chapter: book/emergence/energy_efficiency.ipynb
"""

from pcbook.emergence.energy_efficiency import claims
from pcbook.emergence.energy_efficiency.arrays import Numbers
from pcbook.emergence.energy_efficiency.images import SIZES, Size, pooled
from pcbook.emergence.energy_efficiency.measures import (
    Bounds,
    Energies,
    Measures,
    Probe,
    bounds,
    correlation,
    decode,
    elsewhere,
    energies,
    in_wrong_context,
    interval,
    lesion,
    lesion_others,
    measure,
    measure_all,
    medians,
    prediction_units,
    probe,
)
from pcbook.emergence.energy_efficiency.network import (
    COSTS,
    RECURRENT,
    Network,
    drive,
    energy,
    gradient,
    init,
    preactivations,
    run,
)
from pcbook.emergence.energy_efficiency.orders import ORDERS, sequences
from pcbook.emergence.energy_efficiency.training import (
    Training,
    rule,
    train,
)

__all__ = [
    "COSTS",
    "ORDERS",
    "RECURRENT",
    "SIZES",
    "Bounds",
    "Energies",
    "Measures",
    "Network",
    "Numbers",
    "Probe",
    "Size",
    "Training",
    "bounds",
    "claims",
    "correlation",
    "decode",
    "drive",
    "elsewhere",
    "energies",
    "energy",
    "gradient",
    "in_wrong_context",
    "init",
    "interval",
    "lesion",
    "lesion_others",
    "measure",
    "measure_all",
    "medians",
    "pooled",
    "preactivations",
    "prediction_units",
    "probe",
    "rule",
    "run",
    "sequences",
    "train",
]
