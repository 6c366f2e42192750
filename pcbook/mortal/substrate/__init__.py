"""Substrate: what changes when a network is a physical device and not a program.

A program runs on any machine that can store its numbers. A physical network differs from every
other, may change its wiring, may communicate by spikes, and need not have a clock.

`chips` are devices with unknown gains, and teach each other by their outputs. `wiring` is sparse
networks whose synapses are exchanged along the slope of the energy at absent ones. `neurons`
holds integrate-and-fire neurons and learning by spike timing, `spikes` predictive coding by
spikes, and `clockless` inference in which every neuron updates at its own times.

Chapter: book/mortal/substrate.ipynb
"""

from pcbook.mortal.substrate import claims
from pcbook.mortal.substrate.chips import Generations, device, generations, in_the_loop, on
from pcbook.mortal.substrate.clockless import infer_without_clock
from pcbook.mortal.substrate.neurons import (
    Cortex,
    Habits,
    Neuron,
    Timing,
    firing_rate,
    integrate_and_fire,
    look,
    newborn,
    responses,
    stdp,
    vote,
)
from pcbook.mortal.substrate.spikes import (
    Spiking,
    additions,
    send,
    settle_by_spikes,
    spiking,
)
from pcbook.mortal.substrate.wiring import (
    Planted,
    by_chance,
    by_slope,
    plant,
    rewire,
    select_structure,
    wire,
    within,
)

__all__ = [
    "Cortex",
    "Generations",
    "Habits",
    "Neuron",
    "Planted",
    "Spiking",
    "Timing",
    "additions",
    "by_chance",
    "by_slope",
    "claims",
    "device",
    "firing_rate",
    "generations",
    "in_the_loop",
    "infer_without_clock",
    "integrate_and_fire",
    "look",
    "newborn",
    "on",
    "plant",
    "responses",
    "rewire",
    "select_structure",
    "send",
    "settle_by_spikes",
    "spiking",
    "stdp",
    "vote",
    "wire",
    "within",
]
