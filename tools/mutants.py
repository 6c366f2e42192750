"""Do the tests notice a mistake? Make each of the mistakes that this subject invites, and see.

Each defect is a replacement of a text that stands exactly once in a file of the package. It is
made in a copy of the package, never here, and the tests of the module run on the copy
until the first one fails. A defect that no test notices survives, and a survivor is an
error.

    python tools/mutants.py [word]

With a word, only the defects whose name has it. All take some minutes.
"""

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Defect(NamedTuple):
    """A mistake in `module`, the path of a file in pcbook: PART/CHAPTER or PART/CHAPTER/SYSTEM."""

    name: str
    module: str
    right: str
    wrong: str

    @property
    def tests(self) -> str:
        """The test file of the chapter."""
        part, chapter, *_ = self.module.split("/")
        return f"tests/{part}/test_{chapter}.py"


def within(module):
    """A maker of defects in that file of the package, from a name, what is right and wrong."""
    return lambda name, right, wrong: Defect(name, module, right, wrong)


in_backprop = within("foundations/backprop")
in_predictive_coding = within("foundations/predictive_coding")
in_inference_learning = within("inference/inference_learning")
in_queries_and_forgetting = within("inference/queries_and_forgetting")
in_thermodynamics = within("mortal/thermodynamics")
in_creature = within("mortal/mortal_computer/creature")
in_foraging = within("mortal/mortal_computer/foraging")
in_neat = within("mortal/mortal_computer/neat")
in_growth = within("mortal/mortal_computer/growth")
in_chips = within("mortal/substrate/chips")
in_wiring = within("mortal/substrate/wiring")
in_neurons = within("mortal/substrate/neurons")
in_spikes = within("mortal/substrate/spikes")
in_clockless = within("mortal/substrate/clockless")

BLAME = "(ds[0] @ layer.W) * phi.slope(x)"
VELOCITY = "-e + (above @ layer.W) * phi.slope(x)"
EULER = "xs = [xs[0], *(x + rate * v for x, v in zip(xs[1:], vs))]"
SCAN = "end, path = lax.scan(step, start, length=steps)"
HIDDEN_ENERGY = "((x - m) ** 2).sum(-1) / 2 for"

DEFECTS = [
    in_backprop("sign of the blame", BLAME, f"-{BLAME}"),
    in_backprop("transpose of the weights", "ds[0] @ layer.W)", "ds[0] @ layer.W.T)"),
    in_backprop("derivative dropped", BLAME, "ds[0] @ layer.W"),
    in_backprop("derivative taken twice", "phi.slope(x)", "phi.slope(x) ** 2"),
    in_backprop("slope of the firing", "phi.slope(x)", "phi.slope(phi(x))"),
    in_backprop("slope of the blame", "phi.slope(x)", "phi.slope(ds[0] @ layer.W)"),
    in_backprop("slope of the layer above", "xs[-2:0:-1]", "xs[-1:1:-1]"),
    in_backprop("weights of the layer below", "params[:0:-1]", "params[-2::-1]"),
    in_backprop("sign of the output's blame", "output_loss.slope(", "-output_loss.slope("),
    in_backprop(
        "sum of the batch's losses",
        "return output_loss(xs[-1], y).mean()",
        "return output_loss(xs[-1], y).sum()",
    ),
    in_backprop("sum of the batch's updates", "hebbian(d, r)", "hebbian(d * len(d), r)"),
    in_backprop("phi left out of the update", "firing(xs[:-1], activation)", "xs[:-1]"),
    in_backprop(
        "phi on the input",
        "firing(xs[:-1], activation)",
        "map(ACTIVATIONS[activation], xs[:-1])",
    ),
    in_backprop(
        "another activation's prediction",
        'Rule("backprop", stateless, gradient, predictor(activation))',
        'Rule("backprop", stateless, gradient, predictor("identity"))',
    ),
    in_predictive_coding("sign of the own error", VELOCITY, VELOCITY.lstrip("-")),
    in_predictive_coding("own error dropped", VELOCITY, VELOCITY.removeprefix("-e + ")),
    in_predictive_coding("sign of the error above", "-e + (above", "-e - (above"),
    in_predictive_coding("transpose of the weights", "(above @ layer.W)", "(above @ layer.W.T)"),
    in_predictive_coding(
        "derivative dropped", "(above @ layer.W) * phi.slope(x)", "above @ layer.W"
    ),
    in_predictive_coding("slope of the firing", "phi.slope(x)", "phi.slope(phi(x))"),
    in_predictive_coding("slope of the error", "phi.slope(x)", "phi.slope(e)"),
    in_predictive_coding(
        "derivative on the own error too", VELOCITY, f"({VELOCITY}) * phi.slope(x)"
    ),
    in_predictive_coding("one step too few", SCAN, SCAN.replace("steps", "steps - 1")),
    in_predictive_coding("one step too many", SCAN, SCAN.replace("steps", "steps + 1")),
    in_predictive_coding("rate left out", EULER, EULER.replace("rate * ", "")),
    in_predictive_coding("up the energy", EULER, EULER.replace("x + rate", "x - rate")),
    in_predictive_coding(
        "input not clamped",
        EULER,
        EULER.replace("xs[0],", "xs[0] + rate * (es[0] @ params[0].W),"),
    ),
    in_predictive_coding(
        "trajectory without its start", "jnp.concatenate([first[None], rest])", "rest"
    ),
    in_predictive_coding(
        "half left out of the energy", HIDDEN_ENERGY, HIDDEN_ENERGY.replace(" / 2", "")
    ),
    in_predictive_coding("mean over features", HIDDEN_ENERGY, HIDDEN_ENERGY.replace("sum", "mean")),
    in_predictive_coding("error is predicted minus actual", "*(x - m for", "*(m - x for"),
    in_predictive_coding("sign of the output's error", "-precision * LOSSES", "precision * LOSSES"),
    in_predictive_coding("precision left out of the error", "-precision * LOSSES", "-LOSSES"),
    in_predictive_coding(
        "precision left out of the energy", "else precision * LOSSES", "else LOSSES"
    ),
    in_predictive_coding("error without a target", "jnp.zeros_like(mu) if y", "mu if y"),
    in_predictive_coding("weights up the energy", "hebbian(-e, r)", "hebbian(e, r)"),
    in_predictive_coding("sum of the batch's updates", "hebbian(-e, r)", "hebbian(-e * len(e), r)"),
    in_predictive_coding(
        "phi left out of the update", "zip(es, firing(xs, activation))", "zip(es, xs)"
    ),
    in_predictive_coding(
        "phi on the input",
        "zip(es, firing(xs, activation))",
        "zip(es, map(ACTIVATIONS[activation], xs))",
    ),
    in_predictive_coding(
        "weights from the errors before inference",
        "es = errors(params, xs, y, **model)",
        "es = errors(params, activities(params, x, activation)[:-1], y, **model)",
    ),
    in_predictive_coding(
        "loss after inference: the label leaks",
        "output_loss(forward(params, x, activation), y)",
        "output_loss(predict(params[-1], firing(xs, activation)[-1]), y)",
    ),
    in_predictive_coding("sum of the batch's losses", "y).mean()", "y).sum()"),
    in_predictive_coding(
        "precision left out of the closed form", "S, chains = P / precision", "S, chains = P"
    ),
    in_predictive_coding(
        "only the last layer's variance", "        S = S + P @ P.T", "    S = S + P @ P.T"
    ),
    in_predictive_coding(
        "own variance forgotten", "S, chains = P / precision", "S, chains = 0 * P"
    ),
    in_predictive_coding("prior forgotten in reverse", "below - (xs[0] - prior)", "below"),
    in_predictive_coding("slope of size squared", "light_error * 2 * size", "light_error * size"),
    in_inference_learning(
        "rest of the fastest sample", "(speed(vs) > rest).any()", "(speed(vs) > rest).all()"
    ),
    in_inference_learning(
        "rest by the activities, not their speed", "speed(vs) > rest", "speed(state[0]) > rest"
    ),
    in_inference_learning(
        "clamped input that moves", "jnp.zeros_like(xs[0]) if clamp_input", "vs[0] if clamp_input"
    ),
    in_inference_learning(
        "start forgotten",
        "if start is None else start)[1:]",
        "if start is None or True else 0)[1:]",
    ),
    in_inference_learning(
        "loss after inference",
        "output_loss(forward(params, x",
        "output_loss(forward(params, xs[0] * 0",
    ),
    in_inference_learning(
        "incremental update uphill", "jnp.subtract, params, end", "jnp.subtract, end, params"
    ),
    in_inference_learning(
        "incremental inference from the start", "start=xs, **model)", "start=start, **model)"
    ),
    in_inference_learning("target's length", "jnp.linalg.norm(way, axis=-1)", "1"),
    in_inference_learning("bias left in the target", "(ts[0] - layer.b)", "ts[0]"),
    in_inference_learning(
        "nudge taken for a precision", "beta / (1 + beta), activities", "beta, activities"
    ),
    in_inference_learning("contrast not divided", "slope / beta, slopes", "slope, slopes"),
    in_inference_learning("nudged twice the same way", "nudged(-nudge)", "nudged(nudge)"),
    in_queries_and_forgetting("belief ignored", "known * output", "output"),
    in_queries_and_forgetting("prior forgotten", "[below - xs[0], *hidden]", "[below, *hidden]"),
    in_queries_and_forgetting("energy without its prior", "(xs[0] ** 2).sum(-1) / 2", "0"),
    in_queries_and_forgetting(
        "unit that predicts itself", "jnp.eye(len(mean)) - precision", "-precision"
    ),
    in_queries_and_forgetting(
        "always the full gradient", "-e if dendritic else", "-e if not known.any() else"
    ),
    in_queries_and_forgetting("losers win", "jnp.argsort(-drive", "jnp.argsort(drive"),
    in_queries_and_forgetting("winners silenced", "(1 - on.T.astype", "(on.T.astype"),
    in_queries_and_forgetting("gates learn", "first.W.at[:, -contexts:].set(0)", "first.W"),
    in_queries_and_forgetting("most surprised memory", ".argmin(0)", ".argmax(0)"),
    in_queries_and_forgetting("last task counted", "[:-1].mean())", ".mean())"),
    in_queries_and_forgetting("rod without inertia", "4 / 3 - POLE", "1 - POLE"),
    in_queries_and_forgetting("push the other way", "2.0 * action - 1", "1 - 2.0 * action"),
    in_queries_and_forgetting("worth after the fall", "jnp.where(ended, 0, best)", "best"),
    in_queries_and_forgetting(
        "age of the last episode", "jnp.where(over, 0, age), store)", "age, store)"
    ),
    in_thermodynamics("diffusion of half the strength", "jnp.sqrt(2 * dt)", "jnp.sqrt(dt)"),
    in_thermodynamics("work in the moved place", "(k_next - k) * x**2 / 2", "(k_next - k) * x**2"),
    in_thermodynamics("tilt before the wall is gone", "[0.0, 0.0, 1.0, 1.0", "[0.0, 1.0, 1.0, 1.0"),
    in_thermodynamics("wrong way erased", "- force * tilt * x", "+ force * tilt * x"),
    in_thermodynamics("trap relaxes too slowly", "jnp.exp(-k_next * time", "jnp.exp(-k * time"),
    in_thermodynamics("variance relaxes as the mean", "math.exp(-2 * k_next", "math.exp(-k_next"),
    in_thermodynamics("bits of kT", "temperature * math.log(2)", "temperature"),
    in_thermodynamics("loops counted once", "int(beyond_one) * once[name]", "0 * once[name]"),
    in_thermodynamics("first turn counted twice", "[turns - 1, *within]", "[turns, *within]"),
    in_thermodynamics("every operation a product", "+ prices.multiply[number]) / 2", "+ 0) / 2"),
    in_thermodynamics("tanh is free", "OPERATIONS_OF_A_TRANSCENDENTAL *", "0 *"),
    in_chips("gains that sum", "jnp.exp(spread * random", "1 + (spread * random"),
    in_chips("update without the chip", "rule.gradient(on(chip, params)", "rule.gradient((params)"),
    in_chips(
        "later generations see labels",
        "return (jax.nn.softmax(here.predict(params, x))",
        "return (targets",
    ),
    in_wiring(
        "the strongest dropped",
        "(_ranks(jnp.where(there, jnp.abs(W)",
        "(_ranks(jnp.where(there, -jnp.abs(W)",
    ),
    in_wiring(
        "the lowest score grown",
        "jnp.where(there, jnp.inf, -score)",
        "jnp.where(there, jnp.inf, score)",
    ),
    in_wiring("weights of dropped synapses kept", "return W * kept,", "return W,"),
    in_wiring(
        "absent synapses learn",
        "return loss, within(update, mask), state",
        "return loss, update, state",
    ),
    in_neurons(
        "refractory time forgotten",
        "interval = neuron.refractory - neuron.tau",
        "interval = -neuron.tau",
    ),
    in_neurons(
        "no rest after a spike",
        "jnp.where(fired, neuron.refractory, rest - dt)",
        "jnp.zeros_like(rest)",
    ),
    in_neurons("late spikes teach too", "- timing.down * after", "+ timing.down * after"),
    in_neurons(
        "a spike pairs with itself",
        "timing.up * post[:, None] * before",
        "timing.up * post[:, None] * (before + pre)",
    ),
    in_neurons("nobody tires", "tired + habits.fatigue * post", "tired"),
    in_spikes("listeners never forget", "told = (1 - leak) * told", "told = told"),
    in_spikes(
        "spikes of any size",
        "jnp.clip(jnp.round((value - told) / threshold), -1, 1)",
        "jnp.round((value - told) / threshold)",
    ),
    in_spikes("errors sent to the input", "settled.error_spikes[1:])", "settled.error_spikes)"),
    in_clockless("a clock after all", "random.bernoulli(k, chance, v.shape) * v", "chance * v"),
    in_creature(
        "learning forgets the size of a synapse", "e * mind.m[:, None] * hands", "e * hands"
    ),
    in_creature("selection is free", ".sum(-1) - PRICE)", ".sum(-1))"),
    in_creature("heat arrives at once", "heat + body.heat[0]", "heat + command"),
    in_creature("the dead go on", "jnp.where(alive, new, old)", "new"),
    in_creature(
        "a full stomach holds more", "jnp.minimum(budget, body.energy", "jnp.add(0, body.energy"
    ),
    in_foraging("tumbles when it gets better", "jnp.where(before < F,", "jnp.where(before > F,"),
    in_neat(
        "genes of the weaker parent alone",
        "for number, gene in fitter.items()",
        "for number, gene in other.items()",
    ),
    in_growth("the shallowest candidate grows", "jnp.argmax(slope", "jnp.argmin(slope"),
]


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [defect for defect in DEFECTS if word in f"{defect.module}: {defect.name}"]
    for defect in chosen:
        with_defect(defect)
    controls = [Defect("nothing", module, "", "") for module in sorted({d.module for d in chosen})]
    with tempfile.TemporaryDirectory() as compiled, processes(compiled) as pool:
        for control, test in zip(controls, pool.map(noticed_by, controls)):
            if test:
                sys.exit(f"{test} fails without any defect in {control.module}: mend that first.")
        print(f"{'module':<35}{'defect':<42}noticed by")
        survivors = 0
        for defect, test in zip(chosen, pool.map(noticed_by, chosen)):
            survivors += test is None
            print(f"{defect.module:<35}{defect.name:<42}{test or 'NO TEST'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} defects are noticed.")
    sys.exit(survivors > 0)


def processes(compiled: str) -> ProcessPoolExecutor:
    """A new process for each defect, with JAX imported already and compiled programs shared."""
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["jax", "optax", "hypothesis", "beartype", "pooch", "pytest"])
    return ProcessPoolExecutor(os.cpu_count(), server, max_tasks_per_child=1)


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that fails."""

    test = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.test is None:
            self.test = report.nodeid.split("::")[-1]


def noticed_by(defect: Defect) -> str | None:
    """The first test that fails on a copy of the package with the defect in it."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("pcbook", "tests", "pyproject.toml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(copy) / name)
        module = Path(copy) / "pcbook" / f"{defect.module}.py"
        module.write_text(with_defect(defect), encoding="utf-8")
        os.chdir(copy)
        sys.path.insert(0, copy)
        first, output = FirstFailure(), io.StringIO()
        with contextlib.redirect_stdout(output):
            options = ["-x", "-q", "-p", "no:cacheprovider"]
            code = pytest.main([*options, defect.tests], [first])
        os.chdir(ROOT)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"No test ran with {defect.name!r}:\n{output.getvalue()[-2000:]}")
    return first.test


def with_defect(defect: Defect) -> str:
    """The module with the wrong text in the place of the right one, which must stand there once."""
    text = (ROOT / "pcbook" / f"{defect.module}.py").read_text(encoding="utf-8")
    if defect.right and (times := text.count(defect.right)) != 1:
        sys.exit(f"{defect.right!r} stands {times} times in {defect.module}: it must stand once.")
    return text.replace(defect.right, defect.wrong) if defect.right else text


if __name__ == "__main__":
    main()
