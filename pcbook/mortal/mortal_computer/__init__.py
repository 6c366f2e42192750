"""A mortal computer: a creature that infers, learns and changes its structure to stay alive.

Its body has a temperature to regulate, a limited store of energy and a wall. It is dead when
the energy or the wall is gone. Its belief, its synapses and their sizes descend one free energy
at three paces: inference, learning and selection (Ororbia & Friston 2023).

`blanket` measures what inside and outside share beyond senses and actions. `creature` is the
clocks, the mind, the body and a whole life of both. `foraging` searches for food by run and
tumble. Two ways to find a structure are compared on XOR: `neat` evolves a population
(Stanley & Miikkulainen 2002), and `growth` adds neurons along the gradient of the energy.

Chapter: book/mortal/mortal_computer.ipynb
"""

from pcbook.mortal.mortal_computer import claims
from pcbook.mortal.mortal_computer.blanket import (
    MUTUAL,
    draw_couplings,
    lagged,
    shared_information,
    wander,
    windows,
)
from pcbook.mortal.mortal_computer.creature import (
    CLOCKS,
    DAY,
    LAG,
    PERIODS,
    Body,
    Mind,
    Paces,
    free_energy,
    live,
    regulate,
    swing,
    variety,
    weather,
)
from pcbook.mortal.mortal_computer.foraging import (
    MANNERS,
    REACH,
    RICHEST,
    Manner,
    forage,
    lifetimes,
    plenty,
)
from pcbook.mortal.mortal_computer.growth import STRETCH, UNITS, grow
from pcbook.mortal.mortal_computer.neat import (
    BIAS,
    OUT,
    Gene,
    evolve,
    fitness,
    respond,
    solves,
)

__all__ = [
    "BIAS",
    "CLOCKS",
    "DAY",
    "LAG",
    "MANNERS",
    "MUTUAL",
    "OUT",
    "PERIODS",
    "REACH",
    "RICHEST",
    "STRETCH",
    "UNITS",
    "Body",
    "Gene",
    "Manner",
    "Mind",
    "Paces",
    "claims",
    "draw_couplings",
    "evolve",
    "fitness",
    "forage",
    "free_energy",
    "grow",
    "lagged",
    "lifetimes",
    "live",
    "plenty",
    "regulate",
    "respond",
    "shared_information",
    "solves",
    "swing",
    "variety",
    "wander",
    "weather",
    "windows",
]
