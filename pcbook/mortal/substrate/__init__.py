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
from pcbook.mortal.substrate.chips import Generations, apply_gains, device, generations, in_the_loop
from pcbook.mortal.substrate.clockless import infer_without_clock
from pcbook.mortal.substrate.neurons import (
    Cortex,
    Habits,
    Neuron,
    Timing,
    classify_by_vote,
    firing_rate,
    init_cortex,
    integrate_and_fire,
    present_image,
    responses,
    stdp,
)
from pcbook.mortal.substrate.spikes import (
    Spiking,
    additions,
    send_spikes,
    settle_by_spikes,
    spiking,
)
from pcbook.mortal.substrate.wiring import (
    Planted,
    apply_mask,
    by_chance,
    by_slope,
    draw_mask,
    plant,
    rewire,
    select_structure,
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
    "apply_gains",
    "apply_mask",
    "by_chance",
    "by_slope",
    "claims",
    "classify_by_vote",
    "device",
    "draw_mask",
    "firing_rate",
    "generations",
    "in_the_loop",
    "infer_without_clock",
    "init_cortex",
    "integrate_and_fire",
    "plant",
    "present_image",
    "responses",
    "rewire",
    "select_structure",
    "send_spikes",
    "settle_by_spikes",
    "spiking",
    "stdp",
]
