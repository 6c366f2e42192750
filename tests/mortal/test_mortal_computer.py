import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import as_a_reader_runs_it, use_float64
from jax import random
from scipy.linalg import solve_discrete_lyapunov

from pcbook import mortal_computer as mc
from pcbook.core.network import Layer
from pcbook.mortal.mortal_computer import Body, Gene, Manner, Mind, Paces

key = random.key(0)
wired = [mc.draw_couplings(np.random.default_rng(seed)) for seed in range(10)]


# --- The wall


def test_shared_information_is_that_of_four_entropies():
    """I(a; b | c) = H(a, c) + H(b, c) - H(c) - H(a, b, c), with H = ln det C / 2."""
    factor = np.random.default_rng(0).normal(size=(5, 5))
    C = factor @ factor.T

    def H(*kept):
        return np.linalg.slogdet(C[np.ix_(kept, kept)])[1] / 2

    target = H(0, 2, 3, 4) + H(1, 2, 3, 4) - H(2, 3, 4) - H(0, 1, 2, 3, 4)
    np.testing.assert_allclose(mc.shared_information(C), target, rtol=1e-9)


def test_stationary_covariance_solves_lyapunovs_equation():
    C = solve_discrete_lyapunov(wired[0], np.eye(4))
    order = [mc.blanket.INSIDE, mc.blanket.OUTSIDE, mc.blanket.SENSE, mc.blanket.ACT]
    np.testing.assert_allclose(mc.lagged(wired[0], 0), C[np.ix_(order, order)], rtol=1e-9)


def test_covariance_with_the_past_is_that_of_a_simulated_life():
    z = np.asarray(mc.wander(key, jnp.asarray(wired[0]), 50_000), float)
    measured, exact = np.cov(mc.windows(z, 2).T), mc.lagged(wired[0], 2)
    spread = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    # Some thousands of independent moments: a correlation is known to about 0.02.
    np.testing.assert_allclose(measured / spread, exact / spread, atol=0.1)


def test_a_mutual_creature_is_split_by_the_blanket_of_the_moment():
    np.testing.assert_allclose(mc.MUTUAL, mc.MUTUAL.T)
    np.testing.assert_allclose(mc.shared_information(mc.lagged(mc.MUTUAL, 0)), 0, atol=1e-12)
    C = mc.lagged(mc.MUTUAL, 0)
    assert mc.shared_information(C[:3, :3]) > 1e-4  # a part of the blanket does not do it


def test_a_creature_with_a_wall_is_split_by_the_blankets_past():
    for A in wired:
        assert mc.shared_information(mc.lagged(A, 40)) < 1e-6
    assert max(mc.shared_information(mc.lagged(A, 0)) for A in wired) > 1e-3


def test_a_leak_is_seen_whatever_the_past():
    leaking = [mc.draw_couplings(np.random.default_rng(seed), leak=1.0) for seed in range(10)]
    assert np.median([mc.shared_information(mc.lagged(A, 40)) for A in leaking]) > 1e-4


def test_arrows_between_inside_and_outside_pass_the_blanket():
    for A in wired:
        for there, here in (
            (0, 3),
            (3, 0),
            (mc.blanket.SENSE, mc.blanket.INSIDE),
            (mc.blanket.ACT, mc.blanket.OUTSIDE),
        ):
            assert A[there, here] == 0
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(A)).max(), 0.9)


# --- The mind


def a_mind(seed=0):
    rng = np.random.default_rng(seed)
    sizes = jnp.asarray(rng.uniform(0.3, 0.7, mc.CLOCKS), jnp.float32)
    return Mind(jnp.float32(0.4), jnp.asarray(rng.normal(size=(8, 2)), jnp.float32), sizes)


def test_every_flow_descends_the_one_free_energy():
    mind, hands, paces = a_mind(), mc.creature.clocks(17.0), Paces(0.01, 0.02, 0.003)
    slope = jax.grad(mc.free_energy)(mind, 0.9, hands)
    after = mc.creature.flow(mind, 0.9, hands, paces)
    for new, old, down, pace in zip(after, mind, slope, paces, strict=True):
        np.testing.assert_allclose(new, old - pace * down, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("still", range(3))
def test_a_pace_of_zero_switches_off_its_flow_alone(still):
    paces = Paces(*(0.0 if i == still else 0.01 for i in range(3)))
    mind = a_mind()
    after = mc.creature.flow(mind, 0.9, mc.creature.clocks(17.0), paces)
    for i, (new, old) in enumerate(zip(after, mind, strict=True)):
        assert np.array_equal(new, old) == (i == still)


def test_a_synapse_stays_between_a_probe_and_one():
    sizes = mc.creature.flow(a_mind(), 0.9, mc.creature.clocks(3.0), Paces(selection=1e3)).m
    np.testing.assert_allclose(np.unique(sizes), [0.05, 1], rtol=1e-6)


def test_clocks_come_round():
    for k, period in enumerate(mc.PERIODS):
        np.testing.assert_allclose(
            mc.creature.clocks(7.0)[k], mc.creature.clocks(7.0 + period)[k], atol=1e-5
        )
    np.testing.assert_allclose((mc.creature.clocks(7.0) ** 2).sum(1), 1, rtol=1e-5)


def test_weather_by_chance_has_the_variance_of_the_weather_by_the_clock():
    keys = random.split(key, 40)
    rhythm, chance = (
        np.asarray(jax.vmap(lambda k, r=r: mc.weather(k, 3600, r))(keys)) for r in (1.0, 0.0)
    )
    # 90 independent stretches of 40 steps in each of 40 lives: the mean is known to some percent.
    np.testing.assert_allclose((chance**2).mean(), (rhythm**2).mean(), rtol=0.1)
    power = np.abs(np.fft.rfft(rhythm[0]))
    assert set(np.argsort(power)[-2:]) == {3600 // 100, 3600 // 36}


# --- The body

QUIET = Paces(0.0, 0.0, 0.0)
RICH = jnp.full(1200, 3.0)
MANNA = jnp.full(400, 50.0)


@pytest.mark.parametrize("gain", [0.0, 0.05, 0.1])
def test_a_reflex_swings_as_the_transfer_function_says(gain):
    heat = 0.05 * jnp.cos(2 * jnp.pi * jnp.arange(1200) / 100)
    T = mc.live(key, heat, RICH, paces=QUIET, gain=gain)[2]["T"][-400:]
    phase = np.exp(-2j * np.pi * np.arange(400) / 100)
    np.testing.assert_allclose(2 * abs((T * phase).mean()), mc.swing(0.05, 100.0, gain), rtol=1e-3)


def test_an_order_arrives_after_its_delay():
    body = Body(jnp.float32(0), jnp.float32(9), jnp.float32(1), jnp.zeros(mc.LAG))
    felt = []
    for step in range(12):
        body = mc.regulate(body, 0.0, jnp.float32(step == 0))
        felt.append(float(body.T))
    np.testing.assert_allclose(felt[: mc.LAG], 0)
    np.testing.assert_allclose(felt[mc.LAG :], 0.95 ** np.arange(4), rtol=1e-5)


def test_what_is_learned_is_the_weathers_own_amplitudes():
    """The clocks of the world tell the heat, and the others nothing."""
    t = jnp.arange(4000.0)
    heat = 0.225 * jnp.cos(2 * jnp.pi * t / 100) + 0.1 * jnp.cos(2 * jnp.pi * t / 36)
    _, mind, _ = mc.live(key, heat, jnp.full(4000, 3.0), budget=1e6, noise=0.0)
    hands = np.asarray(jax.vmap(mc.creature.clocks)(t)).reshape(4000, -1)
    true = np.linalg.lstsq(hands, np.asarray(heat))[0].reshape(8, 2)
    told = np.asarray(mind.m[:, None] * mind.w)
    np.testing.assert_allclose(told[mc.DAY], true[mc.DAY], atol=0.06)
    others = np.delete(told, [mc.DAY, mc.creature.TIDE], 0)
    assert np.abs(others).max() < 0.05


def energy_by_hand(diary, food, budget):
    """The ledger of a life, kept apart: full at birth, and nothing over the brim."""
    energy, ledger = budget, []
    for T, u, m, meal in zip(diary["T"], diary["u"], diary["m"], food, strict=True):
        gain = meal * np.exp(-((T / 1.5) ** 2) / 2)
        energy = min(budget, energy + gain - 1 - 0.2 * abs(u) - 0.2 * m.sum())
        ledger.append(energy)
    return np.array(ledger)


def test_every_unit_of_energy_is_accounted_for():
    heat = mc.weather(key, 200) / 2
    food = 2 + jnp.sin(jnp.arange(200.0))
    diary = jax.tree.map(np.asarray, mc.live(key, heat, food, budget=300.0)[2])
    assert diary["alive"].all()
    np.testing.assert_allclose(
        diary["energy"], energy_by_hand(diary, np.asarray(food), 300.0), rtol=1e-3
    )


def test_without_food_it_dies_when_the_budget_is_gone_and_changes_no_more():
    diary = jax.tree.map(
        np.asarray,
        mc.live(key, jnp.zeros(100), jnp.zeros(100), paces=QUIET, noise=0.0, budget=50.0)[2],
    )
    died = diary["alive"].sum()
    assert died == np.ceil(50 / 1.8) - 1  # 1 for being, 0.2 for each of eight half synapses
    for name in ("T", "energy", "wall", "m", "x"):
        assert np.ptp(diary[name][died:], axis=0).max() == 0


def test_a_wall_wears_off_in_the_heat_and_that_is_death():
    """At rest at T = 20 heat, wall lost a step is (T / 3)^2 - 1 hundredths."""
    heat = jnp.full(400, 0.3)
    diary = jax.tree.map(
        np.asarray, mc.live(key, heat, MANNA, paces=QUIET, gain=0.0, noise=0.0, budget=1e3)[2]
    )
    died = diary["alive"].sum()
    assert diary["energy"][died] > 0 >= diary["wall"][died]
    np.testing.assert_allclose(
        -np.diff(diary["wall"])[died - 5 : died - 1],
        0.01 * ((diary["T"][died - 4 : died] / 3) ** 2 - 1),
        rtol=1e-3,
    )
    mild = mc.live(key, heat / 3, MANNA, paces=QUIET, gain=0.0, noise=0.0, budget=1e3)[2]
    assert mild["alive"].all()


def test_what_is_torn_out_is_gone_and_the_rest_is_not():
    cut = jnp.zeros(8).at[mc.DAY].set(1)
    lives = [
        mc.live(key, mc.weather(key, 300) / 2, jnp.full(300, 9.0), hurt=hurt, cut=cut)[2]["m"]
        for hurt in (200, -1)
    ]
    np.testing.assert_allclose(lives[0][:200], lives[1][:200])
    assert lives[0][200, mc.DAY] < 0.06 < lives[1][200, mc.DAY]
    assert np.abs(np.delete(lives[0][200] - lives[1][200], mc.DAY)).max() < 0.02


def test_a_life_and_a_search_for_food_run_in_double_precision():
    with use_float64():
        key = random.key(0)
        heat = mc.weather(key, 50)
        body, mind, diary = mc.live(key, heat, jnp.full(50, 3.0), budget=50.0)
        places, food = mc.forage(key, mc.MANNERS["free energy"], steps=50)
    for number in jax.tree.leaves((body, mind, diary, places, food)):
        assert number.dtype in (np.float64, bool)


# --- Regulation and food


def test_variety_of_equal_chances_is_the_logarithm_of_their_number():
    assert mc.variety(np.repeat(np.arange(8.0), 5), 1.0) == pytest.approx(3)
    assert mc.variety(np.arange(8.0), 2.5) < 3
    assert mc.variety(np.ones(9), 1.0) == 0


def test_the_still_live_by_the_food_of_their_place():
    """They die at budget / (1 - food), or never."""
    manner = mc.MANNERS["sessile"]
    places, food = jax.vmap(lambda k: mc.forage(k, manner, steps=400))(random.split(key, 100))
    assert np.ptp(np.asarray(places), axis=1).max() < 1e-6
    food = np.asarray(food, float)
    loss = 1 - food[:, 0]
    expected = np.where(loss > 0, np.ceil(60 / np.maximum(loss, 1e-9)), np.inf)
    expected[expected > 400] = np.inf
    np.testing.assert_allclose(mc.lifetimes(food, 60), expected, atol=1)


def test_every_step_is_of_the_same_length_on_a_square_with_joined_edges():
    places, food = map(np.asarray, mc.forage(key, mc.MANNERS["random"], steps=300))
    stride = (np.diff(places, axis=0) + 0.5) % 1 - 0.5
    np.testing.assert_allclose(np.linalg.norm(stride, axis=1), mc.foraging.SPEED, rtol=1e-4)
    assert np.abs(places).max() <= 0.5
    np.testing.assert_allclose(food, 3 * np.exp(-(places**2).sum(1) / 0.08), rtol=1e-4)


def test_with_a_clear_sense_it_turns_after_every_step_away_and_no_other():
    places, food = map(np.asarray, mc.forage(key, Manner(1.0, 0.0), steps=400, noise=0.0))
    stride = (np.diff(places, axis=0) + 0.5) % 1 - 0.5
    turned = (np.abs(np.diff(stride, axis=0)) > 3e-6).any(1)
    worse = food[1:-1] < food[:-2]
    sure = np.abs(food[1:-1] - food[:-2]) > 1e-4
    assert not turned[sure & ~worse].any()
    assert turned[sure & worse].mean() > 0.97  # a tumble may, rarely, go on where it went


def test_following_the_free_energy_finds_food_and_its_opposite_flees():
    keys = random.split(key, 50)
    eaten = [
        float(jax.vmap(lambda k, m=m: mc.forage(k, m, steps=600)[1])(keys)[:, 300:].mean())
        for m in (Manner(1.0, 0.0), Manner(0.5, 0.5), Manner(0.0, 1.0))
    ]
    assert eaten[0] > 2 > eaten[1] > eaten[2]
    # By chance, everywhere equally: the mean of the food over the square.
    assert eaten[1] == pytest.approx(3 * 2 * np.pi * 0.2**2, abs=0.3)


def test_food_beyond_the_brim_is_lost():
    food = np.concatenate([np.full(50, 9.0), np.zeros(50)])[None]
    assert mc.lifetimes(food, 20) == 70


# --- Evolution


def xor_by_hand():
    """OR and NAND into AND: the network that everybody draws."""
    wires = [(0, 4, 4), (1, 4, 4), (2, 4, -2), (0, 5, -4), (1, 5, -4), (2, 5, 6), (4, 3, 4)]
    wires += [(5, 3, 4), (2, 3, -6)]
    return {i: Gene(s, t, float(w)) for i, (s, t, w) in enumerate(wires)}


def test_a_network_drawn_by_hand_does_xor_and_half_of_it_does_not():
    genome = xor_by_hand()
    assert mc.solves(genome)
    assert mc.fitness(genome) == pytest.approx(16, abs=0.1)
    genome[6] = genome[6]._replace(on=False)
    assert not mc.solves(genome)


def test_response_is_that_of_sigmoids_layer_by_layer():
    x = np.random.default_rng(0).normal(size=(5, 2))
    hidden = 1 / (1 + np.exp(-4.9 * (x @ [[4, -4], [4, -4]] + [-2, 6])))
    out = 1 / (1 + np.exp(-4.9 * (hidden @ [4, 4] - 6)))
    np.testing.assert_allclose(mc.respond(xor_by_hand(), x), out, rtol=1e-9)


def test_the_same_invention_has_the_same_number():
    ancestry = mc.neat.Ancestry()
    a, b = ancestry.connection(0, 3), ancestry.connection(1, 3)
    assert a != b
    assert ancestry.connection(0, 3) == a
    assert ancestry.node(a) == ancestry.node(a) != ancestry.node(b)


def test_children_have_the_fitters_genes_and_of_matching_ones_either_weight():
    rng = np.random.default_rng(0)
    fitter = {1: Gene(0, 3, 1.0), 2: Gene(1, 3, 1.0), 5: Gene(2, 3, 1.0)}
    other = {1: Gene(0, 3, -1.0), 2: Gene(1, 3, -1.0, False), 7: Gene(2, 4, -1.0)}
    children = [mc.neat.crossed(rng, fitter, other) for _ in range(400)]
    assert all(child.keys() == fitter.keys() for child in children)
    assert all(child[5] == fitter[5] for child in children)
    first = np.mean([child[1].weight for child in children])
    assert abs(first) < 0.2  # of 400 tosses: 4 standard errors
    assert 0.65 < np.mean([not child[2].on for child in children]) < 0.85


def test_distance_by_hand():
    a = {1: Gene(0, 3, 1.0), 2: Gene(1, 3, 2.0), 4: Gene(2, 3, 0.0)}
    b = {1: Gene(0, 3, 0.0), 2: Gene(1, 3, -1.0), 5: Gene(0, 4, 0.0), 6: Gene(4, 3, 0.0)}
    assert mc.neat.distance(a, b) == pytest.approx(3 + 0.4 * (1 + 3) / 2)
    assert mc.neat.distance(a, a) == 0


def test_mutation_grows_no_loops_and_leaves_the_parent_alone():
    rng, ancestry = np.random.default_rng(0), mc.neat.Ancestry()
    genome = ancestry.ancestor(rng)
    for _ in range(150):
        before = dict(genome)
        child = mc.neat.mutated(rng, genome, ancestry, True)
        assert genome == before
        genome = child
    assert not any(mc.neat.leads(genome, g.target, g.source) for g in genome.values())
    assert len({g.target for g in genome.values()}) > 2
    assert all(ancestry.connection(g.source, g.target) == n for n, g in genome.items())


def test_what_a_network_could_still_grow_is_all_that_closes_no_loop():
    genome = {1: Gene(0, 4, 1.0), 2: Gene(4, 5, 1.0, False), 3: Gene(5, 3, 1.0), 4: Gene(2, 3, 1.0)}
    assert set(mc.neat.absent(genome)) == {(0, 3), (0, 5), (2, 4), (2, 5), (4, 3)}
    assert mc.neat.absent(mc.neat.Ancestry().ancestor(np.random.default_rng(0))) == []


def test_splitting_a_connection_keeps_its_weight_on_the_way_out():
    rng, ancestry = np.random.default_rng(3), mc.neat.Ancestry()
    parent = ancestry.ancestor(rng)
    child = parent
    while len(child) == len(parent):
        child = mc.neat.mutated(rng, parent, ancestry, True)
    into, out = list(child.values())[-2:]
    (split,) = [g for g in child.values() if not g.on]
    assert (into.source, out.target) == (split.source, split.target)
    assert into.target == out.source
    assert (into.weight, out.weight) == (1.0, split.weight)


def test_species_are_of_those_alike():
    near, far = {1: Gene(0, 3, 0.0)}, {1: Gene(0, 3, 30.0)}
    genomes = [near, far, {1: Gene(0, 3, 0.5)}, {1: Gene(0, 3, 29.0)}]
    assert mc.neat.sorted_into_species(genomes, [near], 3.0) == [[0, 2], [1, 3]]
    assert mc.neat.sorted_into_species(genomes, [near], np.inf) == [[0, 1, 2, 3]]


def test_evolution_keeps_its_size_and_without_new_structure_fails():
    rng, ancestry = np.random.default_rng(0), mc.neat.Ancestry()
    genomes = [ancestry.ancestor(rng) for _ in range(30)]
    scores = np.array([mc.fitness(genome) for genome in genomes])
    for species in ([list(range(30))], [list(range(10)), list(range(10, 30))]):
        assert len(mc.neat.offspring(rng, genomes, scores, species, ancestry, True, True)) == 30
    champions = mc.evolve(0, generations=8, size=30, grow=False)
    assert len(champions) == 8
    assert max(map(mc.fitness, champions)) < 9.5  # the best that a network without hidden does


# --- Growth


def test_the_candidate_with_the_steepest_absent_synapse_sprouts():
    x, y = (jnp.asarray(a, jnp.float32) for a in (mc.neat.XOR[0], mc.neat.XOR[1][:, None]))
    empty = [
        Layer(jnp.zeros((5, 2)), jnp.zeros(5)),
        Layer(jnp.zeros((1, 5)), jnp.full(1, 0.5)),
    ]

    def missed(k, by_gradient):
        """The slope of the loss at the silent synapse of the new neuron."""
        net = mc.growth.sprout(k, empty, 0, x, y, by_gradient)

        def loss(W):
            mu = jnp.tanh(x @ net[0].W.T + net[0].b) @ W.T + net[1].b
            return ((y - mu) ** 2 / 2).mean()

        return abs(float(jax.grad(loss)(net[1].W)[0, 0]))

    keys = random.split(key, 12)
    steepest, by_lot = ([missed(k, by) for k in keys] for by in (1.0, 0.0))
    assert all(a >= b - 1e-6 for a, b in zip(steepest, by_lot, strict=True))
    assert np.mean(steepest) > 1.5 * np.mean(by_lot)


def test_xor_is_not_learned_without_hidden_neurons_and_is_with_some():
    params, losses, solved = jax.jit(mc.grow)(key)
    assert losses[0] == pytest.approx(0.125, abs=1e-3)  # half the variance of the targets
    assert not solved[0]
    assert solved[-1]
    assert (params[0].W != 0).any(1).sum() == mc.UNITS


# --- What is refused


def test_arguments_that_make_no_sense_are_named():
    with as_a_reader_runs_it():
        with pytest.raises(ValueError, match=r"regular = 2: must be from 0"):
            mc.weather(key, 10, 2)
        with pytest.raises(ValueError, match="budget = 0: must be a positive number"):
            mc.live(key, jnp.zeros(5), jnp.zeros(5), budget=0)
        with pytest.raises(ValueError, match="budget = -1: must be a positive number"):
            mc.lifetimes(np.ones((1, 3)), -1)
        with pytest.raises(ValueError, match="size = 1, generations = 5: must be at least 2"):
            mc.evolve(0, size=1, generations=5)


# --- criteria of the claims


@pytest.mark.parametrize(
    ("criterion", "meets", "fails"),
    [
        ("separates", {"whole": 1, "leaking": 50}, {"whole": 70, "leaking": 80}),
        (
            "predicts_needs",
            {"rhythms": np.full(3, 0.3), "chance": np.full(3, 1.0)},
            {"rhythms": np.full(3, 1.0), "chance": np.full(3, 1.0)},
        ),
        ("models_the_weather", {"actions": 0.9}, {"actions": 0.1}),
        (
            "persists",
            {"foragers": 100, "random": 0, "sessile": 30, "fed": 35},
            {"foragers": 3, "random": 0, "sessile": 30, "fed": 35},
        ),
        (
            "needs_all_three",
            {"alive": np.array([0.9, 0.1]), "F": np.array([0.1, 0.2])},
            {"alive": np.array([0.9, 0.1]), "F": np.array([0.2, 0.1])},
        ),
        (
            "needs_every_idea",
            {"neat": 10, "no_crossover": 9, "one_species": 3, "no_structure": 0, "runs": 10},
            {"neat": 8, "no_crossover": 5, "one_species": 3, "no_structure": 0, "runs": 10},
        ),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(criterion, meets, fails):
    function = getattr(mc.claims, criterion)
    assert function(meets)
    assert not function(fails)


# --- What life, healing and breeding are for


def test_an_order_is_against_what_is_felt_and_the_change_expected_until_it_arrives():
    """The mind of a short life, replayed step by step, and what its clocks expect, in numpy."""
    heat = 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(60.0) / 36)
    diary = mc.live(key, heat, jnp.full(60, 3.0), noise=0.0, gain=0.05)[2]
    mind = Mind(jnp.zeros(()), jnp.zeros((mc.CLOCKS, 2)), jnp.full(mc.CLOCKS, 0.5))
    orders, changes, T = [], [], 0.0
    for t, felt in enumerate(heat):
        mind = mc.creature.flow(mind, felt, mc.creature.clocks(float(t)), Paces())
        angles = 2 * np.pi * np.array([[t], [t + mc.LAG]]) / np.asarray(mc.PERIODS)
        now, then = (mind.w * np.stack([np.cos(angles), np.sin(angles)], -1)).sum(-1) @ mind.m
        orders.append(-(0.05 * T + mind.x + then - now))
        changes.append(then - now)
        T = diary["T"][t]
    tolerance = 1e-4
    np.testing.assert_allclose(diary["u"], orders, atol=tolerance)
    assert np.abs(changes).max() > 100 * tolerance  # or else leaving them out would not show


def test_a_wall_heals_by_a_hundredth_a_step_at_the_set_point_until_it_is_whole():
    body, walls = Body(jnp.zeros(()), jnp.ones(()), jnp.full((), 0.97), jnp.zeros(mc.LAG)), []
    for _ in range(5):
        body = mc.regulate(body, 0.0, 0.0)
        walls.append(float(body.wall))
    np.testing.assert_allclose(walls, [0.98, 0.99, 1, 1, 1], rtol=1e-6)


def test_the_fittest_fifth_of_a_species_breeds_and_no_other():
    """Each of 20 genomes has a gene of its own, which tells whose child a child is."""
    rng, ancestry = np.random.default_rng(0), mc.neat.Ancestry()
    genomes = [{number: Gene(0, 3, 1.0)} for number in range(20)]
    scores = rng.permutation(20) + 1.0
    children = mc.neat.offspring(
        rng, genomes, scores, [list(range(20))], ancestry, grow=False, mate=False
    )
    assert len(children) == 20
    parents = {number for child in children for number in child}
    assert len(parents) > 1
    assert parents <= set(np.flatnonzero(scores > 16))
