import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import as_a_reader_runs_it, assert_close, case, random_like, use_float64
from jax import random

from pcbook import backprop, claims, predictive_coding, queries_and_forgetting, rules
from pcbook.core.network import Layer, forward, init
from pcbook.foundations.predictive_coding import energy
from pcbook.inference.queries_and_forgetting import (
    Memory,
    accelerations,
    ask,
    fallen,
    gated,
    keeping_gates,
    memorise,
    move,
    practise,
    recall,
    select,
    transfer,
    upright,
    winners,
)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with use_float64():
        yield


def total_energy(params, xs, y, known, precision):
    """The energy of a network with hidden causes, in full: prior, layers, and what is known."""
    *hidden, last = params
    F = (xs[0] ** 2).sum() / 2
    r = xs[0]
    for layer, x in zip(hidden, xs[1:], strict=True):
        F += ((x - r @ layer.W.T - layer.b) ** 2).sum() / 2
        r = jnp.tanh(x)
    return F + precision * (known * (y - r @ last.W.T - last.b) ** 2).sum() / 2


# --- Questions


@pytest.mark.parametrize("known", [(1, 1, 1, 1), (1, 0, 0, 1), (0.3, 1, 0, 0)])
def test_answers_descend_the_energy_of_what_is_known(known):
    example, known = case((2, 5, 4), scale=0.7), jnp.array(known, float)
    answer = ask(example.params, example.y, known, steps=6, rate=0.05, precision=2.0)
    slope = jax.grad(lambda xs: total_energy(example.params, xs, example.y, known, 2.0))
    xs = [jnp.zeros((3, 2)), jnp.tile(example.params[0].b, (3, 1))]
    for _ in range(6):
        xs = [x - 0.05 * s for x, s in zip(xs, slope(xs), strict=True)]
    assert_close(answer.xs, xs)
    W, b = example.params[-1]
    assert_close(answer.y, jnp.tanh(xs[-1]) @ W.T + b)


def gaussian(params, precision):
    """Mean and covariance of the output of a linear network with causes N(0, I)."""
    C, mean = jnp.eye(params[0].W.shape[1]), jnp.zeros(params[0].W.shape[1])
    for i, (W, b) in enumerate(params):
        noise = 1 / precision if i == len(params) - 1 else 1.0
        C, mean = W @ C @ W.T + noise * jnp.eye(len(b)), W @ mean + b
    return mean, C


def test_a_linear_network_answers_with_the_conditional_mean():
    """Of a Gaussian: mean_m + C_mk C_kk^-1 (y_k - mean_k)."""
    example, k = case((3, 4, 5), scale=0.8), np.array([True, False, True, True, False])
    mean, C = gaussian(example.params, 2.0)
    expected = mean[~k] + (example.y[:, k] - mean[k]) @ np.linalg.solve(
        C[np.ix_(k, k)], C[np.ix_(k, ~k)]
    )
    ours = ask(
        example.params,
        example.y,
        jnp.asarray(k, float),
        steps=20_000,
        rate=0.05,
        activation="identity",
        precision=2.0,
    )
    np.testing.assert_allclose(ours.y[:, ~k], expected, 1e-7, 1e-9)


def test_what_is_not_known_is_not_looked_at():
    example, known = case((2, 4, 3)), jnp.array([1.0, 0, 1])
    other = example.y.at[:, 1].set(jnp.nan)
    assert_close(ask(example.params, other, known).y, ask(example.params, example.y, known).y)


def test_knowing_nothing_the_network_says_what_it_expects():
    example = case((2, 4, 3), scale=0.5)
    answer = ask(example.params, example.y, jnp.zeros(3))
    assert_close(answer.y, forward(example.params, jnp.zeros((3, 2))))


def test_the_rule_learns_from_the_gradient_of_the_energy_at_the_end_of_inference():
    example = case((2, 5, 4), scale=0.7)
    rule = queries_and_forgetting.rule(steps=7, rate=0.05, precision=2.0)
    loss, update, state = rule.gradient(example.params, (), example.x, example.y, random.key(0))
    xs = ask(example.params, example.y, jnp.ones(4), steps=7, rate=0.05, precision=2.0).xs
    F = energy(example.params, xs, example.y, precision=2.0) + (xs[0] ** 2).sum(1) / 2
    np.testing.assert_allclose(loss, F.mean())
    slopes = jax.grad(lambda p: total_energy(p, xs, example.y, 1.0, 2.0) / 3)(example.params)
    assert_close(update, slopes)
    assert state == ()


def test_the_rule_does_not_look_at_the_inputs():
    example = case((2, 5, 4))
    rule = queries_and_forgetting.rule()
    a, b = (
        rule.gradient(example.params, (), x, example.y, random.key(0))
        for x in (example.x, 7 + example.x)
    )
    assert_close(a[1], b[1])


# --- Memory


def samples(n=5, count=200, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, n)) @ rng.normal(size=(n, n)) + rng.normal(size=n))


def test_memory_is_where_the_hebbian_rule_rests():
    """With the noise written out as samples, the mean of e_i x_j is zero for i not j."""
    x, noise = samples(), 0.3
    n, tall = x.shape[1], np.sqrt(0.3 * 200 / 2)
    memory = memorise(x, noise)
    shaken = jnp.concatenate([x, memory.mean + tall * jnp.eye(n), memory.mean - tall * jnp.eye(n)])
    e = memory.error(shaken)
    hebb = e.T @ (shaken - memory.mean) / len(x)
    np.testing.assert_allclose(hebb - jnp.diag(jnp.diag(hebb)), 0, atol=1e-10)
    np.testing.assert_allclose(jnp.diag(memory.W), 0, atol=1e-12)


def test_each_unit_is_regressed_on_the_others():
    x = samples()
    memory = memorise(x, 1e-12)
    z = np.asarray(x - x.mean(0))
    for i in range(z.shape[1]):
        others = np.delete(np.arange(z.shape[1]), i)
        weights = np.linalg.lstsq(z[:, others], z[:, i])[0]
        np.testing.assert_allclose(memory.W[i, others], weights, 1e-6)


def conditional_mean(x, noise, asked, k):
    C = np.cov(np.asarray(x).T, bias=True) + noise * np.eye(x.shape[1])
    mean = np.asarray(x).mean(0)
    return mean[~k] + (asked[:, k] - mean[k]) @ np.linalg.solve(C[np.ix_(k, k)], C[np.ix_(k, ~k)])


@pytest.mark.parametrize("known", [(1, 1, 0, 0, 1), (0, 1, 0, 0, 0)])
def test_dendritic_recall_is_the_conditional_mean(known):
    x, k = samples(), np.array(known, bool)
    asked = samples(seed=1)[:4]
    ours = recall(memorise(x, 0.5), asked, jnp.asarray(k), steps=50_000)
    np.testing.assert_allclose(ours[:, ~k], conditional_mean(x, 0.5, asked, k), 1e-7, 1e-9)
    np.testing.assert_array_equal(ours[:, k], asked[:, k])


def test_recall_by_the_full_gradient_rests_at_the_least_energy_and_elsewhere():
    x, k = samples(), np.array((1, 1, 0, 0, 1), bool)
    asked, memory = samples(seed=1)[:4], memorise(samples(), 0.5)
    ours = recall(memory, asked, jnp.asarray(k), dendritic=False, steps=50_000, rate=0.05)
    slope = jax.grad(lambda x: (memory.error(x) ** 2).sum() / 2)(ours)
    np.testing.assert_allclose(slope[:, ~k], 0, atol=1e-7)
    assert np.abs(ours[:, ~k] - conditional_mean(x, 0.5, asked, k)).max() > 0.01


# --- Gates


def test_the_most_driven_units_win():
    drive = jnp.array([[0.1, 3.0, -1.0, 2.0], [5.0, 4.0, 3.0, 9.0]])
    expected = [[False, True, False, True], [True, False, False, True]]
    np.testing.assert_array_equal(winners(drive, 2), expected)


def test_as_many_units_win_as_may_even_in_a_tie():
    np.testing.assert_array_equal(winners(jnp.zeros((3, 7)), 4).sum(1), 4)


def gated_network():
    on = winners(random.normal(random.key(1), (3, 8)), 3)
    return on, gated(init(random.key(0), (4, 8, 2)), on)


def test_in_each_context_its_own_units_alone_are_heard():
    on, params = gated_network()
    x = random.normal(random.key(2), (5, 4))
    for context in range(3):
        named = jnp.concatenate([x, jnp.tile(jnp.eye(3)[context], (5, 1))], 1)
        hidden = jnp.maximum(x @ params[0].W[:, :4].T, 0) * on[context]
        assert_close(forward(params, named, "relu"), hidden @ params[1].W.T)


@pytest.mark.parametrize("learn", [backprop.rule, predictive_coding.rule])
def test_learning_in_a_context_leaves_the_other_units_as_they_are(learn):
    on, params = gated_network()
    x, y = random.normal(random.key(2), (2, 5, 4))
    named = jnp.concatenate([x, jnp.tile(jnp.eye(3)[1], (5, 1))], 1)
    rule = keeping_gates(learn(activation="relu"), 3)
    _, (first, second), _ = rule.gradient(params, (), named, y[:, :2], random.key(0))
    assert not first.W[:, 4:].any()
    assert not first.W[~on[1]].any()
    assert not second.W[:, ~on[1]].any()
    assert first.W[on[1], :4].any()


def test_the_least_surprised_memory_is_selected():
    places = [samples(seed=s) for s in range(3)]
    memories = [memorise(x, 0.1) for x in places]
    asked = jnp.concatenate([x[:20] for x in places])
    surprise = np.stack([(np.asarray(m.error(asked)) ** 2).sum(1) for m in memories], 1)
    np.testing.assert_array_equal(select(memories, asked), surprise.argmin(1))
    still = [Memory(jnp.zeros((2, 2)), jnp.array(mean)) for mean in ([0.0, 0.0], [5.0, 5.0])]
    np.testing.assert_array_equal(select(still, jnp.array([[1.0, 0.0], [4.0, 4.0]])), [0, 1])


def test_transfer_by_hand():
    R = np.array([[0.9, 0.5, 0.5], [0.7, 0.8, 0.4], [0.6, 0.9, 1.0]])
    accuracy, backward = transfer(R)
    np.testing.assert_allclose(accuracy, 2.5 / 3)
    np.testing.assert_allclose(backward, (-0.3 + 0.1) / 2)


# --- The pole


def lagrangian(q, v):
    """Kinetic less potential energy of a cart with a uniform rod of length 1 m standing on it."""
    (_, angle), (u, spin) = q, v
    half = 0.5
    tip = jnp.array([u + half * spin * jnp.cos(angle), -half * spin * jnp.sin(angle)])
    turning = 0.1 * (2 * half) ** 2 / 12 * spin**2 / 2
    return 1.0 * u**2 / 2 + 0.1 * (tip @ tip) / 2 + turning - 0.1 * 9.8 * half * jnp.cos(angle)


@pytest.mark.parametrize("seed", range(5))
def test_pole_and_cart_obey_lagrange(seed):
    """d/dt dL/dv = dL/dq + force, solved for the accelerations."""
    state = 0.7 * random.normal(random.key(seed), (4,))
    q, v, force = state[::2], state[1::2], 10.0 * (-1) ** seed
    mass = jax.hessian(lagrangian, 1)(q, v)
    mixed = jax.jacobian(jax.grad(lagrangian, 1), 0)(q, v) @ v
    pull = jax.grad(lagrangian, 0)(q, v) + jnp.array([force, 0.0])
    np.testing.assert_allclose(
        jnp.stack(accelerations(state, force)), jnp.linalg.solve(mass, pull - mixed), rtol=1e-9
    )


def test_left_alone_the_energy_stays_and_a_push_adds_its_work():
    def total(state):
        q, v = state[::2], state[1::2]
        rest = lagrangian(q, jnp.zeros(2))
        return lagrangian(q, v) - 2 * rest

    state = jnp.array([0.3, -0.5, 0.4, 1.2])
    for force in (0.0, 10.0, -4.0):
        cart, pole = accelerations(state, force)
        flow = jnp.array([state[1], cart, state[3], pole])
        gained = jax.grad(total)(state) @ flow
        np.testing.assert_allclose(gained, force * state[1], rtol=1e-9, atol=1e-12)


def test_a_move_is_an_euler_step_of_10_newtons():
    state = jnp.array([0.1, 0.2, -0.1, 0.3])
    for action, force in ((0, -10.0), (1, 10.0)):
        cart, pole = accelerations(state, force)
        flow = jnp.array([0.2, cart, 0.3, pole])
        np.testing.assert_allclose(move(state, action), state + 0.02 * flow, rtol=1e-12)


@pytest.mark.parametrize(
    ("state", "over"),
    [
        ((2.39, 9, 0.2, 9), False),
        ((2.41, 0, 0, 0), True),
        ((-2.41, 0, 0, 0), True),
        ((0, 0, 0.21, 0), True),
        ((0, 0, -0.21, 0), True),
    ],
)
def test_an_episode_ends_at_12_degrees_or_2_4_metres(state, over):
    assert fallen(jnp.array(state, float)) == over


def test_an_episode_starts_near_upright():
    starts = jax.vmap(upright)(random.split(random.key(0), 200))
    assert jnp.abs(starts).max() <= 0.05
    assert (starts.std(0) > 0.02).all()


def pole_run(rule, moves=300, seed=0, **options):
    params = init(random.key(seed), (4, 16, 2))
    run = jax.jit(
        lambda key: practise(
            rule, params, optimizer=optax.adam(0.01), moves=moves, key=key, **options
        )
    )
    return params, *run(random.key(seed))


def test_episodes_fill_the_time():
    _, _, lengths = pole_run(backprop.rule(activation="sigmoid"))
    ends = np.flatnonzero(lengths)
    np.testing.assert_array_equal(np.diff(ends, prepend=-1), lengths[ends])
    assert lengths.max() <= 200


def test_what_an_action_is_worth_is_learned_from_what_follows():
    """With no discount every move is worth its reward of 1, for both actions and everywhere."""
    _, params, _ = pole_run(backprop.rule(activation="sigmoid"), moves=1500, discount=0.0)
    worth = forward(params, jax.vmap(upright)(random.split(random.key(5), 50)), "sigmoid")
    np.testing.assert_allclose(worth, 1, atol=0.05)


def test_nothing_is_expected_after_a_fall():
    """A rule that says 10 of everything and counts its targets: 1, 1 + 10 / 2, or as it said."""

    def counted(params, state, x, y, key):
        counts = jnp.stack([(y == told).sum() for told in (1.0, 6.0, 10.0)])
        return 0.0, [Layer(params[0].W, 1.0 * counts)], state

    counting = rules.Rule(
        "counting",
        lambda key, params: (),
        counted,
        lambda params, x: jnp.full((len(x), 2), 10.0),
    )
    run = {"optimizer": optax.identity(), "moves": 400, "discount": 0.5}
    empty = [Layer(jnp.zeros((3, 1)), jnp.zeros(3))]
    (counts,), lengths = practise(counting, empty, key=random.key(0), **run)
    after_a_fall, going_on, untaken = counts.b
    assert untaken == after_a_fall + going_on == 400 * 60
    assert 0.5 < after_a_fall / untaken / (lengths > 0).mean() < 2  # replayed, some oftener


def test_practice_takes_the_action_that_is_worth_more_once_it_has_explored():
    """A rule that says 10 and 20, and counts the targets that differ: those of actions taken.

    The first quarter explores, less and less; then 39 of 40 moves are to be the better one.
    """

    def counted(params, state, x, y, key):
        return 0.0, [Layer(params[0].W, 1.0 * (y != told).sum(0))], state

    told = jnp.array([10.0, 20.0])
    rule = rules.Rule(
        "counting", lambda key, params: (), counted, lambda params, x: jnp.tile(told, (len(x), 1))
    )
    empty = [Layer(jnp.zeros((2, 1)), jnp.zeros(2))]
    run = {"optimizer": optax.identity(), "moves": 800, "discount": 0.5}
    (counts,), _ = practise(rule, empty, key=random.key(0), **run)
    assert counts.b.sum() == 800 * 60
    assert counts.b[1] > 0.65 * counts.b.sum()


def test_practice_uses_the_rule_that_it_is_given():
    start, params, _ = pole_run(
        backprop.rule(activation="sigmoid")._replace(
            gradient=lambda params, state, x, y, key: (
                0.0,
                jax.tree.map(jnp.zeros_like, params),
                state,
            )
        ),
        moves=20,
    )
    assert_close(start, params)


# --- What is refused

network = case((2, 4, 3))
memory = memorise(samples())


@pytest.mark.parametrize(
    "call",
    [
        queries_and_forgetting.rule,
        lambda **bad: ask(network.params, network.y, jnp.ones(3), **bad),
        lambda **bad: recall(memory, samples(), jnp.ones(5, bool), **bad),
    ],
)
def test_inference_that_does_not_move_is_refused(call):
    with as_a_reader_runs_it():
        with pytest.raises(ValueError, match="steps = 0: must be an integer of at least 1"):
            call(steps=0)
        with pytest.raises(ValueError, match="rate = -1: must be a positive number"):
            call(rate=-1)


def test_belief_must_be_from_0_to_1():
    with pytest.raises(ValueError, match=r"known = .*: must be from 0 to 1"):
        ask(network.params, network.y, jnp.array([0.0, 1.0, 2.0]))


def test_shapes_that_do_not_fit_are_named():
    with as_a_reader_runs_it():
        with pytest.raises(ValueError, match=r"y has shape \(3, 4\): must be \(batch, 3\)"):
            ask(network.params, jnp.ones((3, 4)), jnp.ones(3))
        with pytest.raises(ValueError, match=r"known has shape \(2,\): must be \(3,\)"):
            ask(network.params, network.y, jnp.ones(2))
        with pytest.raises(ValueError, match=r"known = .* n = 4 as in x"):
            recall(memory, jnp.ones((3, 4)), jnp.ones(5, bool))


def test_noise_and_winners_must_be_some():
    with as_a_reader_runs_it():
        with pytest.raises(ValueError, match="noise = 0: must be a positive number"):
            memorise(samples(), 0)
        for k in (0, 5):
            with pytest.raises(ValueError, match=f"k = {k}: must be (1 to 4|an integer of at)"):
                winners(jnp.ones((2, 4)), k)


def test_a_layer_that_a_gate_extends_keeps_its_weights():
    params = [Layer(*random_like(layer)) for layer in init(random.key(0), (4, 8, 2))]
    longer = gated(params, jnp.ones((3, 8), bool))
    assert_close(longer[0].W[:, :4], params[0].W)
    assert_close(longer[0].W[:, 4:], jnp.zeros((8, 3)))
    assert_close(longer[1:], params[1:])


# --- The criteria of the claims

ANSWERS = {
    "named": [85.0, 90.0],
    "completed": [0.8, 0.85],
    "drawn": [9, 10],
    "corrected": [60.0, 70.0],
    "kept": [96.0, 98.0],
}
GATES = {"learned": [97.0], "none": [82.0], "oracle": [98.0], "shuffled": [82.0]}


@pytest.mark.parametrize(
    ("claim", "meets", "fails"),
    [
        (
            "qf-any-query",
            ANSWERS,
            [
                {"named": [75.0, 80.0]},
                {"completed": [0.9, 0.95]},
                {"drawn": [8, 9]},
                {"corrected": [40.0, 50.0]},
                {"kept": [94.0, 95.0]},
            ],
        ),
        (
            "qf-dendritic",
            {"dendritic": 1e-5, "gradient": 0.6},
            [{"dendritic": 0.1}, {"gradient": 0.05}],
        ),
        (
            "qf-turns",
            {"ahead": np.array([2.0, 2.1, 1.9])},
            [{"ahead": np.array([1.0, 1.1, 0.8])}, {"ahead": np.array([-5.0, 2.0, 9.0])}],
        ),
        (
            "qf-gate",
            GATES,
            [{"learned": [86.0]}, {"oracle": [99.5]}, {"shuffled": [91.0]}, {"none": [93.0]}],
        ),
        (
            "qf-pole",
            {"ahead": np.array([7.0, 8.0, 9.0])},
            [{"ahead": np.array([3.0, 4.0, 5.0])}, {"ahead": np.array([-20.0, 6.0, 40.0])}],
        ),
    ],
)
def test_a_criterion_can_be_met_and_can_fail(claim, meets, fails):
    criterion = claims.criteria()[claim]
    assert criterion(meets) is True
    assert [criterion(meets | change) for change in fails] == [False] * len(fails)
