"""The command line: `python -m pcbook --help`."""

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from pcbook.runs import Refused
from pcbook.runs.ending import sentences
from pcbook.runs.files import read_start
from pcbook.runs.parts import experiments, run_program, spread
from pcbook.runs.processes import Supervised, check_processes, join

NAME = "python -m pcbook"
SEVERAL = ("--rate", "--only", "--local-device-ids")  # options of which each may have many values


class Sizes(click.Command):
    """A command whose help ends in the defaults of each data set."""

    def format_epilog(self, context, formatter):
        """Write the epilog, and below it the defaults."""
        from pcbook.emergence.energy_efficiency import SIZES

        super().format_epilog(context, formatter)
        with formatter.section("Defaults of --rate and --epochs by data"):
            rows = [(name, f"{s.rate:g}, {s.epochs} epochs") for name, s in SIZES.items()]
            formatter.write_dl([*rows, ("your own", "as for digits")])


def options(*added: Callable) -> Callable:
    """Give a command several options, in this order."""

    def add(function):
        for option in reversed(added):
            function = option(function)
        return function

    return add


COUNT = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)

FOLDER = options(
    click.option("--out", required=True, metavar="DIR", help="The folder of this run."),
    click.option("--quiet", is_flag=True, help="Say nothing while it trains."),
    click.option(
        "--checkpoint-every",
        type=COUNT,
        default=10,
        show_default=True,
        metavar="N",
        help="Epochs that a kill can cost.",
    ),
)
UNTIL = click.option(
    "--until",
    type=COUNT,
    metavar="EPOCH",
    help="Stop there and measure; the same command without it goes on.",
)
DATA = click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, mnist14, mnist, fashion14, fashion, cifar8, cifar16; an .npz file with x_train, "
    "y_train, x_test and y_test; or a folder of images, train/CLASS/IMAGE and test/CLASS/IMAGE, "
    "or CLASS/IMAGE, of which each fifth is then for the test.",
)
TRAINING = options(
    click.option(
        "--seeds", type=click.IntRange(1, 100_000), default=1, show_default=True,
        help="How many networks.",
    ),
    click.option(
        "--first-seed", type=SEED, default=0, show_default=True, metavar="N",
        help="The seed of the first.",
    ),
    click.option("--epochs", type=COUNT, help="Default: what suffices for the data, see below."),
    click.option(
        "--rate",
        type=float,
        multiple=True,
        help="Adam's step size (default: what suits the data, see below); of several, each with "
        "every seed.",
    ),
    click.option(
        "--batch-size", type=COUNT, default=32, show_default=True, metavar="N",
        help="Sequences, or images, in a batch.",
    ),
)  # fmt: skip
DEVICES = options(
    click.option(
        "--devices", type=COUNT, metavar="N", help="Use the first N that JAX finds (default: all)."
    ),
    click.option(
        "--coordinator-address",
        metavar="HOST:PORT",
        help="Join other processes there, as in jax.distributed.initialize; under SLURM or Open "
        "MPI, auto finds it and the next two.",
    ),
    click.option("--num-processes", type=COUNT, metavar="N", help="How many processes there are."),
    click.option("--process-id", type=int, metavar="I", help="Which of them this is, from 0."),
    click.option(
        "--local-device-ids", type=int, multiple=True, metavar="I", help="Devices of this process."
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli():
    r"""Long runs of pcbook: begin, stop, go on with, and look at them.

    \b
    python -m pcbook list
    python -m pcbook run energy-efficiency --out first
    python -m pcbook report first

    Exit codes: 0 done, 1 not possible, 2 wrong arguments, 75 stopped: the same command goes on.
    """


class Experiments(click.Group):
    """The experiments of the package, and those of `experiments/` in a checkout."""

    def list_commands(self, context):
        """All of them by name."""
        return [*super().list_commands(context), *experiments()]

    def get_command(self, context, name):
        """The command that runs one of them."""
        if name not in experiments():
            return super().get_command(context, name)
        path = experiments()[name]
        said = path.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0]
        return click.Command(
            name,
            callback=lambda arguments: run_program(path, list(arguments)),
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            context_settings={"ignore_unknown_options": True, "help_option_names": []},
            short_help=said.strip().splitlines()[0],
        )


@cli.group(cls=Experiments)
def run():
    r"""Begin an experiment, or go on with it where it stopped.

    A run is a folder. A run that was stopped or killed goes on when the same command is given
    again. MNIST and the like are downloaded once, or read from the folder that the environment
    variable PCBOOK_DATA names.

    \b
    python -m pcbook run energy-efficiency --data mnist --seeds 10 --out pre
    """


@run.command(
    cls=Sizes,
    epilog="""\b
    python -m pcbook run energy-efficiency --out first
        the 8x8 digits that come with the package: about ten seconds
    python -m pcbook run energy-efficiency --data mnist --loss pre --seeds 10 --epochs 200 --out pre
        the published experiment
    python -m pcbook run energy-efficiency --data faces/ --network mine.py:NETWORK --out faces
        your own images and your own network, a pcbook.energy_efficiency.Network""",
)
@options(
    FOLDER,
    UNTIL,
    DATA,
    click.option(
        "--network",
        default="recurrent",
        show_default=True,
        help="A network of the chapter on controls by its name, or your own by its import path, "
        "package.module:NAME or folder/file.py:NAME.",
    ),
    click.option(
        "--loss",
        default="pre",
        show_default=True,
        type=click.Choice(["pre", "post", "post+weights"]),
        help="What is saved: preactivation, activity, or activity and weights.",
    ),
    click.option(
        "--order",
        default="ascending",
        show_default=True,
        type=click.Choice(["ascending", "either way", "random"]),
        help="The order of the classes in a sequence.",
    ),
    click.option(
        "--steps", type=COUNT, default=10, show_default=True, help="Images in a sequence."
    ),
    TRAINING,
    DEVICES,
)
def energy_efficiency(**chosen):
    """Train networks that only save energy, and see whether they predict.

    Recurrent networks on ordered images, one for each seed, learn to save energy; then it is
    measured whether they predict the coming image.
    """
    compute("energy", **chosen)


CONTROLS = options(
    FOLDER,
    DATA,
    click.option(
        "--experiment",
        default="variants",
        show_default=True,
        type=click.Choice(["variants", "stopping"]),
        help="Other networks and orders, or trainings that are watched without a stop.",
    ),
    click.option("--only", multiple=True, metavar="NAME", help="Only these variants, by name."),
    TRAINING,
    DEVICES,
)


@run.command(
    cls=Sizes,
    epilog="""\b
    python -m pcbook run energy-controls --seeds 10 --epochs 600 --out variants
    python -m pcbook run energy-controls --experiment stopping --seeds 10 --out stopping""",
)
@CONTROLS
def energy_controls(experiment, **chosen):
    """Other networks, orders and rules for stopping, under the same measures."""
    compute("energy_controls", experiment=f"energy-{experiment}", until=None, **chosen)


@run.command(
    epilog="""\b
    python -m pcbook run training --method inference-learning --seeds 3 --out learned
    python -m pcbook run training --network mine.py:MODEL --rate 0.001 0.003 --out mine
        your own network, a pcbook.models.Model(name, init, apply)""",
)
@options(
    FOLDER,
    UNTIL,
    DATA,
    click.option(
        "--network",
        default="mlp",
        show_default=True,
        help="A multilayer network with 64 hidden units, or your own by its import path, "
        "package.module:NAME or folder/file.py:NAME.",
    ),
    click.option(
        "--method",
        default="backprop",
        show_default=True,
        type=click.Choice(["backprop", "z-il", "fixed-prediction", "inference-learning"]),
        help="Backprop, or predictive coding along the graph.",
    ),
    TRAINING,
    DEVICES,
)
def training(**chosen):
    """Train a model on labelled images, by backprop or by predictive coding.

    By default 20 epochs at a rate of 0.001, whatever the data.
    """
    compute("training", **chosen)


def compute(module: str, **chosen) -> None:
    """Run an experiment of `pcbook.runs` with the options of its command."""
    context = click.get_current_context()
    chosen.setdefault("experiment", context.command.name)
    chosen["out"] = str(Path(chosen["out"]).expanduser())
    chosen["data"] = str(Path(chosen["data"]).expanduser())
    started = context.find_root().obj
    given = Namespace(**chosen, command=started.command, arguments=started.arguments)
    check_processes(given)
    if given.coordinator_address is not None:
        started.end.supervised = Supervised()
        join(given)
        started.end.stop.listen()  # JAX takes SIGTERM when processes join
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        raise Refused(f"JAX finds no device: {error}. Look at JAX_PLATFORMS.") from error
    import_module(f"pcbook.runs.{module}").main(given, started.end.stop)


@cli.command(epilog="\b\n    python -m pcbook resume first")
@click.argument("folder", metavar="DIR")
def resume(folder):
    """Go on with a run, by the command that began it.

    A run of several processes is resumed by that command itself.
    """
    start = read_start(Path(folder))
    place = Path(folder).resolve()
    arguments = start["arguments"]
    if "--num-processes" in arguments:
        raise Refused(f"{folder} is of several processes: start each again by its own command")
    if not Path(start["folder"]).is_dir():
        raise Refused(f"{folder} was begun in {start['folder']}, which is not there")
    os.chdir(start["folder"])
    root = click.get_current_context().find_root()
    command = run.get_command(root, arguments[0])
    context = command.make_context(arguments[0], list(arguments[1:]), parent=root)
    root.obj.arguments = arguments
    context.params |= {"out": str(place)} | ({"until": None} if "until" in context.params else {})
    with context:
        command.invoke(context)


@cli.command(name="list", epilog="\b\n    python -m pcbook list\n    python -m pcbook list runs/")
@click.argument("folder", metavar="[DIR]", required=False)
def list_(folder):
    """List the experiments, or the runs in a folder with how far they are."""
    from pcbook.runs import report

    if folder is not None:
        click.echo(report.table_of_runs(Path(folder)))
        return
    context = click.get_current_context()
    for name in run.list_commands(context):
        click.echo(f"{name:24}{run.get_command(context, name).get_short_help_str(100)}")


@cli.command(epilog="\b\n    python -m pcbook status first")
@click.argument("folder", metavar="DIR")
def status(folder):
    """Say how far a run is, and what came out so far."""
    from pcbook.runs import report

    click.echo(report.status(Path(folder)))


TO = click.option("--to", metavar="FILE", help="Where it goes (default: into the run's folder).")


@cli.command(epilog="\b\n    python -m pcbook plot first --to first.png")
@click.argument("folder", metavar="DIR")
@TO
def plot(folder, to):
    """Draw the curves of a run, also while it goes on, as a picture."""
    from pcbook.runs import report

    click.echo(f"Drawn: {report.plot(Path(folder), to and Path(to))}")


@cli.command(epilog="\b\n    python -m pcbook report first --to first.html")
@click.argument("folder", metavar="DIR")
@TO
def report(folder, to):
    """Write the tables and figures of a run as one HTML page."""
    from pcbook.runs import report

    click.echo(f"Written: {report.write(Path(folder), to and Path(to))}")


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for; what cannot be done ends with a sentence.

    Exit codes: 0 done, 1 not possible, 2 wrong arguments, 75 stopped and to be started again.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    started = Namespace(command=f"{NAME} {shlex.join(arguments)}", arguments=arguments[1:])
    arguments = spread(arguments, *SEVERAL)
    with sentences() as end:
        started.end = end
        cli.main(arguments, prog_name=NAME, standalone_mode=False, obj=started)


if __name__ == "__main__":
    main()
