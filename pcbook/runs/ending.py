"""How a program of long runs ends: with a sentence and an exit code, never with a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from pcbook.runs import Lost, Refused, Stopped
from pcbook.runs.processes import LOST, Supervised
from pcbook.runs.stopping import EXIT_CODE, Stop


@dataclass
class End:
    """The signals that stop a program, and the parent that waits for it, if there is one."""

    stop: Stop
    supervised: Supervised | None = None


@contextmanager
def sentences() -> Iterator[End]:
    """Turn what stops a program into a sentence and an exit code.

    Exit codes: 0 done, 1 not possible, 2 wrong arguments, 75 stopped and to be started again.
    """
    code, said, together = 0, "", True
    with Stop() as stop:
        end = End(stop)
        try:
            yield end
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except click.exceptions.Exit as error:
            code = error.exit_code
        except (Refused, ValueError, OSError, MemoryError) as error:
            code, said = 1, f"error: {error or type(error).__name__}"
            if end.supervised is not None and "Gloo" in said:  # JAX raises ValueError for it
                code, said, together = EXIT_CODE, f"error: {LOST}", False
        except Stopped as error:
            code, said = EXIT_CODE, f"Stopped by {stop.asked or 'another process'}. {error}"
        except Lost as error:
            code, said, together = EXIT_CODE, f"error: {error}", False
        except RuntimeError as error:
            code, said, together = _of_jax(error, end.supervised)
        if said:
            print(said, file=sys.stderr, flush=True)
        if end.supervised is not None:
            end.supervised.end(code, together)
    if code:
        sys.exit(code)


def _of_jax(error, supervised):
    """Exit code and sentence for an error that JAX raises, and whether all processes have it."""
    import jax

    if not isinstance(error, jax.errors.JaxRuntimeError):
        raise error
    if supervised is not None:
        return EXIT_CODE, f"error: {LOST}", False
    text = " ".join(str(error).split())
    remedy = ": choose fewer --seeds or smaller images" if "RESOURCE_EXHAUSTED" in text else ""
    return 1, f"error: JAX could not compute this{remedy}: {text[:300]}", False
