"""The command line: `python -m pcbook energy-efficiency --help`."""

import argparse
import shlex
import socket
import sys

from pcbook.runs import Refused, Stopped
from pcbook.runs.stopping import EXIT_CODE, Stop

EXAMPLES = """\
examples:
  python -m pcbook energy-efficiency --out first
      the 8x8 digits that come with the package: about ten seconds
  python -m pcbook energy-efficiency --data mnist --loss pre --seeds 10 --epochs 200 --out pre
      the published experiment

The folder of a run holds settings.json, metrics.csv (a row for each epoch and network, there to
be plotted while it runs), checkpoints/, and in the end weights.npz, results.npz (curves and
measures) and results.json (what made them). A run
that was killed goes on when the same command is given again. MNIST and the like are
downloaded once, or read from the folder that the environment variable PCBOOK_DATA names.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line, with a subcommand for each experiment."""
    main = argparse.ArgumentParser(prog="python -m pcbook", description=__doc__)
    commands = main.add_subparsers(dest="experiment_name", required=True, metavar="experiment")
    _add_energy(commands)
    _add_controls(commands)
    return main


def _add_energy(commands):
    energy = commands.add_parser(
        "energy-efficiency",
        help="train networks that only save energy, and see whether they predict",
        description="Train recurrent networks on ordered images to save energy, one for each "
        "seed, and measure whether they predict the coming image.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    energy.add_argument("--out", required=True, metavar="DIR", help="the folder of this run")
    _add_task(energy)
    _add_training(energy)
    _add_checkpoints(energy)
    energy.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_devices(energy)


def _add_task(energy):
    """The images, their order, and what is saved."""
    add = energy.add_argument
    add(
        "--data",
        default="digits",
        help="digits (default), mnist14, mnist, fashion14, fashion, cifar8, cifar16, or a file "
        ".npz with x_train, y_train, x_test and y_test",
    )
    add(
        "--loss",
        default="pre",
        choices=("pre", "post", "post+weights"),
        help="what is saved: preactivation (default), activity, or activity and weights",
    )
    add(
        "--order",
        default="ascending",
        choices=("ascending", "either way", "random"),
        help="the order of the classes in a sequence (default: ascending)",
    )


def _add_training(energy):
    """The networks, how long they train, and how."""
    add = energy.add_argument
    add("--seeds", type=count, default=1, help="how many networks (default: 1)")
    add("--first-seed", type=int, default=0, metavar="N", help="the seed of the first (default: 0)")
    add("--epochs", type=count, help="default: what suffices for the data")
    add(
        "--rate",
        type=float,
        nargs="+",
        help="Adam's step size (default: what suits the data); of several, each with every seed",
    )
    add("--batch-size", type=count, default=32, metavar="N", help="sequences (default: 32)")
    add("--steps", type=count, default=10, help="images in a sequence (default: 10)")


def _add_checkpoints(energy):
    """How often the state is kept, and where to stop."""
    add = energy.add_argument
    add(
        "--checkpoint-every",
        type=count,
        default=10,
        metavar="N",
        help="epochs that a kill can cost (default: 10)",
    )
    add(
        "--until",
        type=count,
        metavar="EPOCH",
        help="stop there and measure; the same command without it goes on",
    )


def _add_devices(energy):
    """The devices and processes that share the networks."""
    devices = energy.add_argument_group(
        "devices", "Networks are shared out over all the devices that JAX finds."
    )
    add = devices.add_argument
    add("--devices", type=count, metavar="N", help="use only the first N (default: all)")
    add(
        "--coordinator-address",
        metavar="HOST:PORT",
        help="join other processes there, as in jax.distributed.initialize; "
        "under SLURM or Open MPI, 'auto' finds it and the next two",
    )
    add("--num-processes", type=count, metavar="N", help="how many processes there are")
    add("--process-id", type=int, metavar="I", help="which of them this is, from 0")
    add("--local-device-ids", type=int, nargs="+", metavar="I", help="devices of this process")


def _add_controls(commands):
    controls = commands.add_parser(
        "energy-controls",
        help="other networks, orders and rules for stopping, under the same measures",
        description="The experiments of the chapter on controls; writes OUT.npz and OUT.json.",
    )
    add = controls.add_argument
    add("--out", required=True, metavar="FILE", help="where the results go, without suffix")
    add("--experiment", default="variants", choices=("variants", "stopping"))
    add("--data", default="digits", help="as for energy-efficiency (default: digits)")
    add("--seeds", type=count, default=10, help="how many networks each (default: 10)")
    add("--epochs", type=count, help="default: what suffices for the data")
    add("--rate", type=float, help="Adam's step size (default: what suits the data)")
    add("--only", nargs="+", metavar="NAME", help="only these variants, as the table names them")


def count(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of at least 1")
    return number


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for; what cannot be done ends with a sentence.

    Exit codes: 0 done, 1 not possible, 2 wrong arguments, 75 stopped and to be started again.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    options.command = "python -m pcbook " + shlex.join(arguments)
    with Stop() as stop:
        try:
            if options.experiment_name == "energy-efficiency":
                _join_processes(options)
                stop.listen()  # JAX takes SIGTERM when processes join
            _run(options, stop)
        except (Refused, ValueError, OSError, MemoryError) as error:
            sys.exit(f"error: {error or type(error).__name__}")
        except Stopped as end:
            print(f"Stopped by {stop.asked or 'another process'}. {end}", file=sys.stderr)
            sys.exit(EXIT_CODE)


def _join_processes(options):
    """Join the other processes of the run, if there are any. Raises Refused if it cannot."""
    address, number = options.coordinator_address, options.process_id
    _check_processes(options)
    if address is None:
        return
    import jax

    try:
        jax.distributed.initialize(
            None if address == "auto" else address,
            options.num_processes,
            number,
            options.local_device_ids,
        )
    except Exception as error:  # of many kinds: of JAX, of gRPC, of the cluster's variables
        text = " ".join(str(error).split()) or type(error).__name__
        raise Refused(f"the processes could not join at {address}: {text}") from error


def _check_processes(options):
    """Raise Refused for arguments of a distributed start that do not fit each other."""
    address, processes, number = (
        options.coordinator_address,
        options.num_processes,
        options.process_id,
    )
    if address is None:
        for name in ("num_processes", "process_id", "local_device_ids"):
            if getattr(options, name) is not None:
                option = "--" + name.replace("_", "-")
                raise Refused(f"{option} needs --coordinator-address HOST:PORT, or auto")
        return
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise Refused(f"--coordinator-address {address}: must be HOST:PORT, or auto")
    if processes is None or number is None:
        raise Refused("--coordinator-address HOST:PORT needs --num-processes and --process-id")
    if not 0 <= number < processes:
        raise Refused(f"--process-id {number}: must be 0 to {processes - 1}")
    if number == 0:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", int(port)))
            except OSError as error:
                raise Refused(
                    f"--coordinator-address {address}: port {port} is in use or not allowed "
                    f"({error.strerror}); choose another for all processes"
                ) from error


def _run(options, stop):
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        raise Refused(f"JAX finds no device: {error}. Look at JAX_PLATFORMS.") from error
    if options.experiment_name == "energy-efficiency":
        from pcbook.runs import energy as experiment
    else:
        from pcbook.runs import energy_controls as experiment
    experiment.main(options, stop)
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()  # all together: none leaves while another still works


if __name__ == "__main__":
    main()
