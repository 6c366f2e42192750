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
    ACT,
    INSIDE,
    MUTUAL,
    OUTSIDE,
    SENSE,
    lagged,
    shared,
    wander,
    windows,
    wired,
)
from pcbook.mortal.mortal_computer.creature import (
    CLOCKS,
    DAY,
    LAG,
    PERIODS,
    TIDE,
    Body,
    Mind,
    Paces,
    clocks,
    flow,
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
    SPEED,
    Manner,
    forage,
    lifetimes,
    plenty,
)
from pcbook.mortal.mortal_computer.growth import STRETCH, UNITS, grow, sprout
from pcbook.mortal.mortal_computer.neat import (
    BIAS,
    OUT,
    XOR,
    Ancestry,
    Gene,
    absent,
    crossed,
    distance,
    evolve,
    fitness,
    leads,
    mutated,
    offspring,
    respond,
    solves,
    sorted_into_species,
)

__all__ = [
    "ACT",
    "BIAS",
    "CLOCKS",
    "DAY",
    "INSIDE",
    "LAG",
    "MANNERS",
    "MUTUAL",
    "OUT",
    "OUTSIDE",
    "PERIODS",
    "REACH",
    "RICHEST",
    "SENSE",
    "SPEED",
    "STRETCH",
    "TIDE",
    "UNITS",
    "XOR",
    "Ancestry",
    "Body",
    "Gene",
    "Manner",
    "Mind",
    "Paces",
    "absent",
    "claims",
    "clocks",
    "crossed",
    "distance",
    "evolve",
    "fitness",
    "flow",
    "forage",
    "free_energy",
    "grow",
    "lagged",
    "leads",
    "lifetimes",
    "live",
    "mutated",
    "offspring",
    "plenty",
    "regulate",
    "respond",
    "shared",
    "solves",
    "sorted_into_species",
    "sprout",
    "swing",
    "variety",
    "wander",
    "weather",
    "windows",
    "wired",
]
