"""Criteria of the chapter's claims: pure functions of what was measured."""

from pcbook.store.claims import Measurement, criterion


@criterion("mc-blanket")
def separates(m: Measurement) -> bool:
    """Whether a whole wall shares information in under 10% of creatures, a leak in over 30%."""
    return bool(m["whole"] < 10 and m["leaking"] > 30)


@criterion("mc-allostasis")
def predicts_needs(m: Measurement) -> bool:
    """Whether the error is halved under rhythms, and not below 0.9 of reaction's in chance."""
    return bool(m["rhythms"].mean() < 0.5 and m["chance"].mean() >= 0.9)


@criterion("mc-good-regulator")
def models_the_weather(m: Measurement) -> bool:
    """Whether good regulation and what the actions tell of the weather rank alike."""
    return bool(m["actions"] > 0.8)


@criterion("mc-chemotaxis")
def persists(m: Measurement) -> bool:
    """Whether the foragers live, random walkers die, and the sessile live where food suffices."""
    near = abs(m["sessile"] - m["fed"]) < 12
    return bool(m["foragers"] >= 95 and m["random"] <= 5 and near)


@criterion("mc-three-paces")
def needs_all_three(m: Measurement) -> bool:
    """Whether fewer are alive and free energy is higher without any of the three, and without all.

    `alive` and `F` hold the intact creature first.
    """
    return bool((m["alive"][1:] < m["alive"][0]).all() and (m["F"][1:] > m["F"][0]).all())


@criterion("mc-neat")
def needs_every_idea(m: Measurement) -> bool:
    """Whether NEAT solves every run, and no variant without one of its ideas does."""
    others = (m["no_crossover"], m["one_species"], m["no_structure"])
    return bool(m["neat"] == m["runs"] and all(solved < m["runs"] for solved in others))
