"""The variants of the experiment: other networks and other orders under the same measures."""

from collections.abc import Sequence

from jax import random

from pcbook.core.arguments import checked
from pcbook.emergence.energy_controls.conclusions import Conclusions, conclude
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
from pcbook.emergence.energy_efficiency import RECURRENT, Network, measure_all, probe, train
from pcbook.store.data import Dataset

_OTHERS = BIASED, BIAS_ONLY, latent(32), TWO_LAYERS, GRU, LSTM, leaky(0.5), INHIBITORY

# A network and the order of its images, by name.
VARIANTS: dict[str, tuple[Network, str]] = {
    "recurrent": (RECURRENT, "ascending"),
    "recurrent, random": (RECURRENT, "random"),
    "recurrent, either way": (RECURRENT, "either way"),
    **{network.name: (network, "ascending") for network in _OTHERS},
}


@checked
def vary(
    dataset: Dataset,
    network: Network,
    order: str = "ascending",
    *,
    epochs: int,
    rate: float,
    seeds: Sequence[int] = (0,),
) -> Conclusions:
    """Train another network, or on another order, and draw the same conclusions."""
    trained = train(
        dataset.x_train,
        dataset.y_train,
        network=network,
        order=order,
        epochs=epochs,
        rate=rate,
        seeds=seeds,
    )
    return judge(dataset, network, order, trained.params)


@checked
def judge(dataset: Dataset, network: Network, order: str, params) -> Conclusions:
    """Draw the conclusions of trained networks, `params` with a leading axis of networks."""
    test = probe(dataset, random.key(0), times=4, order=order)
    return conclude(measure_all(params, test, random.key(2), network))
