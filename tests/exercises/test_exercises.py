"""Exercises: solutions pass, starters and typical mistakes do not, and every hint helps."""

import ast
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from pcbook import exercises

ROOT = Path(__file__).parents[2]
IMPORTS = (ast.Import, ast.ImportFrom)


def front(Ws, x, y, rate, slope=lambda h: 1 - np.tanh(h) ** 2, top=1):
    """Errors of one sweep of Z-IL on a chain of three tanh layers, right by default."""
    x1 = x @ Ws[0].T
    x2 = np.tanh(x1) @ Ws[1].T
    e3 = top * (y - np.tanh(x2) @ Ws[2].T)
    e2 = rate * (e3 @ Ws[2]) * slope(x2)
    return [rate * (e2 @ Ws[1]) * slope(x1), e2, e3]


def tanh_slope(x):
    return 1 - np.tanh(x) ** 2


MISTAKES = {
    "backprop/slope": {
        "tanh's slope": lambda x: 1 - np.tanh(x) ** 2,
        "slope of the sigmoid": lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
        "outer derivative alone": lambda x: 1 / (1 + np.exp(x)),
        "relu's slope": lambda x: float(x > 0),
        "inner derivative alone": lambda x: np.exp(x),
        "softplus itself": lambda x: np.log1p(np.exp(x)),
    },
    "backprop/blame": {
        "slope forgotten": lambda delta, W, x: delta @ W,
        "slope of the activity's image": lambda delta, W, x: delta @ W * (1 - x**2),
        "transposed": lambda delta, W, x: delta @ W.T,
        "mean over the batch": lambda delta, W, x: delta @ W * tanh_slope(x) / len(x),
        "one blame for all": lambda delta, W, x: (delta @ W * tanh_slope(x)).mean(0, keepdims=True),
        "slope of the first sample": lambda delta, W, x: delta @ W * tanh_slope(x[:1]),
        "slope of the mean activity": lambda delta, W, x: delta @ W * tanh_slope(x.mean(0)),
        "blames added first": lambda delta, W, x: delta.sum(0) @ W * tanh_slope(x),
        "wrong sign": lambda delta, W, x: -delta @ W * tanh_slope(x),
    },
    "backprop/update": {
        "sum over the batch": lambda delta, x: delta.T @ np.tanh(x),
        "activity, not what is sent": lambda delta, x: delta.T @ x / len(x),
        "transposed": lambda delta, x: np.tanh(x).T @ delta / len(x),
        "wrong sign": lambda delta, x: -delta.T @ np.tanh(x) / len(x),
        "slope in place of what is sent": lambda delta, x: delta.T @ tanh_slope(x) / len(x),
        "means multiplied": lambda delta, x: np.outer(delta.mean(0), np.tanh(x).mean(0)),
    },
    "backprop/waiting": {
        "one way only": lambda L: (L - 1) / L / 2,
        "working, not waiting": lambda L: 1 / L,
        "last layer's two ticks apart": lambda L: (2 * L - 1) / (2 * L),
        "share of the layers below": lambda L: (L - 1) / (L + 1),
    },
    "backprop/flops": {
        "multiplications only": 38_731_776,
        "blame for the input": 103_219_200,
        "forward pass only": 34_406_400,
        "last layer forgotten": 6 * 64 * (784 * 256 + 256 * 256),
        "one image": 77_463_552 / 64,
        "twice the prediction": 2 * 34_406_400,
    },
    "predictive_coding/fusion": {
        "plain mean": lambda m, s, u, n: (m + u) / 2,
        "weighed by variance": lambda m, s, u, n: (m * s + u * n) / (s + n),
    },
    "predictive_coding/middle": {
        "half way": lambda x0, y, w1, w2: (w1 * x0 + w2 * y) / 2,
        "the prediction": lambda x0, y, w1, w2: w1 * x0,
    },
    "predictive_coding/velocity": {
        "uphill": lambda e, above, W, x: e - above @ W * (1 - np.tanh(x) ** 2),
        "slope forgotten": lambda e, above, W, x: -e + above @ W,
        "own error forgotten": lambda e, above, W, x: above @ W * (1 - np.tanh(x) ** 2),
    },
    "predictive_coding/price": {
        "input predicted at every step": 12.1,
        "steps alone": 20.0,
    },
    "graph/depth": {
        "vertices counted": (7, 7, 31),
        "the short way": (6, 0, 30),
        "read-outs forgotten": (6, 6, 29),
    },
    "graph/straight": {
        "no name": lambda W, x: (jax.nn.sigmoid(x @ W) @ W).sum(),
        "named before the sigmoid": lambda W, x: (
            jax.nn.sigmoid(checkpoint_name(x @ W, "hidden")) @ W
        ).sum(),
    },
    "graph/price": {
        "steps counted as backprops": 100,
        "steps alone": 100 * 9 / 29,
    },
    "graph/front": {
        "slope forgotten": lambda Ws, x, y, rate: front(Ws, x, y, rate, slope=lambda h: 1),
        "rate on the output": lambda Ws, x, y, rate: front(Ws, x, y, rate, top=rate),
    },
    "inference_learning/first_lesson": {
        "activity at rest forgotten": lambda rate: (1 - rate, (1 - rate / 3) * (1 + rate / 3)),
        "forward pass forgotten": lambda rate: (1 - rate, 1 + 2 * rate / 9),
        "the rules the other way round": lambda rate: (
            (1 - rate / 3) * (1 + 2 * rate / 9),
            1 - rate,
        ),
    },
    "inference_learning/price": {
        "number of steps": 20,
        "first layer predicted once": 174 / 13,
    },
    "inference_learning/target": {
        "tanh left in": lambda W, b, t: np.linalg.solve(W, (t - b).T).T,
        "transposed": lambda W, b, t: np.arctanh(np.clip((t - b) @ W, -0.9, 0.9)),
        "bias forgotten": lambda W, b, t: np.arctanh(np.clip(np.linalg.solve(W, t.T).T, -0.9, 0.9)),
    },
    "inference_learning/chain_energy": {
        "the loss": lambda x, y, w1, w2, w3: (y - w3 * w2 * w1 * x) ** 2 / 2,
        "last weights alone": lambda x, y, w1, w2, w3: (
            (y - w3 * w2 * w1 * x) ** 2 / 2 / (1 + w3**2)
        ),
    },
    "queries_and_forgetting/answer": {
        "mean forgotten": lambda C, mean, x, known: np.where(
            known, x, C[:, known] @ np.linalg.solve(C[np.ix_(known, known)], x[known])
        ),
        "the mean": lambda C, mean, x, known: np.where(known, x, mean),
        "known ones smoothed": lambda C, mean, x, known: mean + 0 * x,
    },
    "queries_and_forgetting/transfer": {
        "last task counted": lambda R: (R[-1].mean(), (R[-1] - np.diag(R)).mean()),
        "wrong sign": lambda R: (R[-1].mean(), (np.diag(R) - R[-1])[:-1].mean()),
        "first stage": lambda R: (R[0].mean(), (R[-1] - R[0])[:-1].mean()),
    },
    "queries_and_forgetting/untouched": {
        "shares added": 0.2,
        "one context": 0.8,
    },
    "queries_and_forgetting/goal": {
        "fall forgotten": lambda reward, fell, values: reward + 0.98 * values.max(1),
        "no discount": lambda reward, fell, values: reward + np.where(fell, 0, values.max(1)),
        "mean of the actions": lambda reward, fell, values: (
            reward + 0.98 * np.where(fell, 0, values.mean(1))
        ),
    },
    "energy_efficiency/guess": {"mean": -0.37, "sign forgotten": 0.4},
    "energy_efficiency/decode": {
        "sign forgotten": lambda drive, medians: (drive @ medians.T).argmax(1),
        "not standardised": lambda drive, medians: (drive @ -medians.T).argmax(1),
    },
    "energy_efficiency/left_over": {
        "expectation added": ([1, 2, 1, 0], [1, 2, 1, 0], 1.0),
        "only what fires costs": ([1, 0, -1, 0], [1, 0, 0, 0], 0.25),
    },
    "energy_efficiency/flops": {
        "forward pass only": 9 * 2 * 32 * 784**2,
        "multiplications only": 26 * 32 * 784**2,
        "blame of the first image": 27 * 2 * 32 * 784**2,
    },
    "energy_controls/significant": {"root forgotten": 128.8, "two digits": 166.0},
    "energy_controls/effect": {
        "z": lambda right, wrong: (lambda extra: extra.mean() / extra.std() * len(extra) ** 0.5)(
            np.abs(wrong).mean(1) - np.abs(right).mean(1)
        ),
        "sign": lambda right, wrong: (lambda extra: extra.mean() / extra.std())(
            np.abs(right).mean(1) - np.abs(wrong).mean(1)
        ),
    },
    "energy_controls/deal": {
        "moved on first": lambda shuffled, pointer: (
            shuffled[(pointer + 1) % len(shuffled)],
            pointer + 1,
        ),
        "never moved on": lambda shuffled, pointer: (shuffled[pointer], pointer),
    },
    "energy_controls/patience": {
        "lowest of all": lambda losses, patience: int(np.argmin(losses)),
        "where it stops": lambda losses, patience: next(
            (n for n in range(len(losses)) if n - np.argmin(losses[: n + 1]) >= patience),
            len(losses) - 1,
        ),
    },
    "fast_inference/price": {
        "a sweep taken for a backprop": lambda depth, sweeps: sweeps,
        "first layer in every sweep": lambda depth, sweeps: 2 * depth * sweeps / (3 * depth - 1),
    },
    "fast_inference/condition": {
        "square root": 2 * 20 / np.pi,
        "depth squared": 400,
    },
    "fast_inference/slopes": {
        "errors next door": lambda Ws, xs, es, top: [
            e - above @ W * (1 - np.tanh(x) ** 2)
            for W, x, e, above in zip(Ws, xs, es, [*es[1:], top])
        ],
        "own error forgotten": lambda Ws, xs, es, top: [
            -top @ Ws[1] @ Ws[0] * (1 - np.tanh(xs[0]) ** 2),
            -top @ Ws[1] * (1 - np.tanh(xs[1]) ** 2),
        ],
    },
    "fast_inference/stays": {
        "no push at all": lambda e, push: push == e,
        "one side only": lambda e, push: push <= e,
    },
    "thermodynamics/bits": {
        "in kT": lambda temperature: 4.6e-12 / (1.380649e-23 * temperature),
        "multiplication alone": lambda temperature: (
            3.7e-12 / (1.380649e-23 * temperature * np.log(2))
        ),
        "always in a room": lambda temperature: 1.602e9,
    },
    "thermodynamics/sudden": {
        "slow": lambda start, end: np.log(end / start) / 2,
        "variance 1": lambda start, end: (end - start) / 2,
        "half forgotten": lambda start, end: (end - start) / start,
    },
    "thermodynamics/estimate": {
        "mean work": lambda works: works.mean(),
        "sign": lambda works: np.log(np.exp(-works).mean()),
        "sum": lambda works: -np.log(np.exp(-works).sum()),
    },
    "thermodynamics/batch": {
        "multiplication alone": 640 / 3.7,
        "a byte": 160 / 4.6,
        "one operation": 640 / 2.3,
    },
    "thermodynamics/break_even": {
        "lessons alone": lambda copy, remote, teach, local: teach / (remote - local),
        "uses there alone": lambda copy, remote, teach, local: (teach - copy) / remote,
    },
    "substrate/transplant": {
        "as it is": lambda W, home, away: W,
        "gains the other way round": lambda W, home, away: W * away / home,
    },
    "substrate/growth": {
        "present ones too": lambda e, r, there: abs(e.T @ r) / len(e),
        "sum over the batch": lambda e, r, there: ~there * abs(e.T @ r),
        "sign kept": lambda e, r, there: ~there * (e.T @ r) / len(e),
    },
    "substrate/removal": {
        "slope alone": lambda w, e, r: w * (e * r).mean(),
        "size of the weight": lambda w, e, r: abs(w),
        "curvature alone": lambda w, e, r: (w * r) @ (w * r) / len(r) / 2,
    },
    "substrate/current": {
        "refractory time forgotten": lambda rate: 1.5 / (1 - np.exp(-50 / rate)),
        "seconds": lambda rate: 1.5 / (1 + np.exp(-(1 / rate - 2) / 20)),
    },
    "substrate/bill": {
        "no batch": (644.6 / 640.9, 4.6 / 0.9),
        "always far": (14.6 / 640.9, 14.6 / 640.9),
        "multiplication forgotten": (10.9 / 640.9, 1.0),
    },
    "mortal_computer/shared": {
        "nothing given": lambda C: -np.log(1 - C[0, 1] ** 2 / C[0, 0] / C[1, 1]) / 2,
        "bits": lambda C: -np.log2(1 - partial(C) ** 2) / 2,
        "no half": lambda C: -np.log(1 - partial(C) ** 2),
    },
    "mortal_computer/slope": {
        "uphill and down": lambda x, w, m, hands, c: (
            (x - (m * (w * hands).sum(1)).sum()) * (w * hands).sum(1) - c
        ),
        "price forgotten": lambda x, w, m, hands, c: (
            -(x - (m * (w * hands).sum(1)).sum()) * (w * hands).sum(1)
        ),
    },
    "mortal_computer/settings": {"bits taken for settings": 4, "all of them": 64},
    "mortal_computer/share": {"radius": 0.296, "half food": np.pi * 0.08 * np.log(2)},
    "mortal_computer/aligned": {
        "excess is disjoint": lambda a, b: (len(set(a) & set(b)), len(set(a) ^ set(b)), 0),
        "by place": lambda a, b: (min(len(a), len(b)), 0, abs(len(a) - len(b))),
    },
}


def partial(C):
    """Partial correlation of the first two, from the inverse of the covariance."""
    P = np.linalg.inv(C)
    return -P[0, 1] / np.sqrt(P[0, 0] * P[1, 1])


def cells(tag):
    """Each cell with the tag, as (name of the exercise, source), over all chapters."""
    for chapter in sorted((ROOT / "book").rglob("*.ipynb")):
        notebook = nbformat.read(chapter, as_version=4)
        code = [
            c
            for c in notebook.cells
            if c.cell_type == "code" and "remove-cell" not in c.metadata.get("tags", ())
        ]
        for cell in code:
            if tag in cell.metadata.get("tags", ()):
                calls = (n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call))
                (check,) = [n for n in calls if ast.unparse(n.func) == "exercises.check"]
                yield check.args[0].value, f"{imports(code)}\n{cell.source}"


def imports(code):
    """What a reader has imported on the way to the exercise."""
    statements = (n for cell in code for n in ast.parse(cell.source).body)
    return "\n".join(map(ast.unparse, (n for n in statements if isinstance(n, IMPORTS))))


def run(source, capsys):
    """What the cell prints."""
    exec(source, {})
    return capsys.readouterr().out


STARTERS, SOLUTIONS = dict(cells("exercise")), dict(cells("solution"))


def test_every_exercise_has_a_starter_a_solution_and_two_mistakes():
    assert set(STARTERS) == set(SOLUTIONS) == set(MISTAKES)
    assert all(len(mistakes) >= 2 for mistakes in MISTAKES.values())


@pytest.mark.parametrize("name", STARTERS)
def test_starter_does_not_pass(name, capsys):
    assert run(STARTERS[name], capsys).startswith("Not yet")


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solution_passes(name, capsys):
    assert run(SOLUTIONS[name], capsys).startswith("Right")


@pytest.mark.parametrize(
    ("name", "mistake"), [(n, m) for n, mistakes in MISTAKES.items() for m in mistakes]
)
def test_typical_mistake_gets_a_hint(name, mistake):
    right, words = exercises.verdict(name, MISTAKES[name][mistake])
    assert not right
    assert len(words) > len("Not yet. ")


OTHER_ANSWERS = {
    "backprop/slope": [
        lambda x: 1 / (1 + math.exp(-x)),
        jax.grad(jax.nn.softplus),
        jax.nn.sigmoid,
        lambda x: np.exp(x) / (1 + np.exp(x)),
    ],
    "backprop/blame": [
        lambda delta, W, x: (W.T @ delta.T).T / np.cosh(x) ** 2,
        lambda delta, W, x: jnp.einsum("bj,ji->bi", delta, W) * (1 - jnp.tanh(x) ** 2),
        lambda delta, W, x: [[*(d @ W * tanh_slope(a))] for d, a in zip(delta, x)],
    ],
    "backprop/update": [
        lambda delta, x: np.mean([np.outer(d, np.tanh(a)) for d, a in zip(delta, x)], axis=0),
        lambda delta, x: jnp.einsum("bj,bi->ji", delta, jnp.tanh(x)) / x.shape[0],
        lambda delta, x: (delta.T @ np.tanh(x) / len(x)).tolist(),
    ],
    "backprop/waiting": [
        lambda L: (2 * L - 2) / (2 * L),
        lambda L: [1 - 1 / L],
        lambda L: np.array([(L - 1) / L]),
    ],
    "backprop/flops": [[77_463_552], np.array([77.46e6]), 77.5e6],
}


@pytest.mark.parametrize(
    ("name", "n"), [(k, n) for k, v in OTHER_ANSWERS.items() for n in range(len(v))]
)
def test_a_right_answer_written_otherwise_passes(name, n):
    right, words = exercises.verdict(name, OTHER_ANSWERS[name][n])
    assert right, words


def test_an_answer_that_stops_with_an_error_is_told_so():
    right, words = exercises.verdict("backprop/waiting", lambda L: 1 / 0)
    assert not right
    assert "ZeroDivisionError" in words


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match="'backprop/nothing'"):
        exercises.check("backprop/nothing", 1)
