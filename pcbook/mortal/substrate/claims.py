"""Criteria of the chapter's claims: pure functions of what was measured, accuracies in percent."""

from pcbook.store.claims import Measurement, criterion


@criterion("substrate-non-transfer")
def loses_by_moving(m: Measurement) -> bool:
    """Whether both rules lose 15 points or more by a move to another chip."""
    return bool(min(m["feedback"].mean(), m["coding"].mean()) >= 15)


@criterion("substrate-distillation")
def is_near_its_teacher(m: Measurement) -> bool:
    """Whether the gap to the teacher is below 2 points in each of the four settings."""
    return bool(all(gap.mean() < 2 for gap in m.values()))


@criterion("substrate-no-model")
def is_near_backprop(m: Measurement) -> bool:
    """Whether both rules are less than 2 points behind backprop through the true weights."""
    return bool(max(m["feedback"].mean(), m["coding"].mean()) < 2)


@criterion("substrate-local-growth")
def finds_planted_synapses(m: Measurement) -> bool:
    """Whether more than SET finds for every seed, and nine tenths of what RigL finds."""
    more = (m["local"] > m["set"]).all()
    return bool(more and m["local"].mean() > 0.9 * m["rigl"].mean())


@criterion("substrate-growth")
def grows_better_by_slope(m: Measurement) -> bool:
    """Whether the gain is above two standard errors at densities of 10, 5 and 2%."""
    gains = (m["ten"], m["five"], m["two"])
    return bool(all(g.mean() > 2 * g.std(ddof=1) / len(g) ** 0.5 for g in gains))


@criterion("substrate-lif")
def fires_by_the_formula(m: Measurement) -> bool:
    """Whether the largest relative error, in percent, is below 1."""
    return bool(m["off"] < 1)


@criterion("substrate-stdp")
def recognises_digits(m: Measurement) -> bool:
    """Whether twice as accurate as untrained neurons, and within 5 points of k-means."""
    timing = m["timing"].mean()
    return bool(timing > 2 * m["untrained"].mean() and timing > m["kmeans"].mean() - 5)


@criterion("substrate-spiking-pc")
def is_near_numbers(m: Measurement) -> bool:
    """Whether spikes are less than 2 points behind numbers."""
    return bool(m["numbers"].mean() - m["spikes"].mean() < 2)


@criterion("substrate-spikes-save")
def saves_energy(m: Measurement) -> bool:
    """Whether settling by spikes takes less energy than by numbers."""
    return bool(m["ratio"] < 1)


@criterion("substrate-no-clock")
def ends_where_the_clock_does(m: Measurement) -> bool:
    """Whether every network ends within 1e-3 of the equilibrium."""
    return bool(m["farthest"] < 1e-3)
