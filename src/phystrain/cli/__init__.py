"""The command line: a verb is a file, and a thin call of a documented function. Heavy imports wait in the verbs.

To add a verb is to add a file with a function under ``@app.command``.
"""

import importlib
import logging
import os
import pkgutil
import platform
import shlex
import sys
import warnings

from cyclopts import CycloptsError

from phystrain.cli._app import app
from phystrain.errors import Echo, LoneError, UserError, lacks_memory
from phystrain.train.launch import is_child, is_first, is_first_here

for _module in pkgutil.iter_modules(__path__):
    if _module.name[0] != "_":
        importlib.import_module(f"{__name__}.{_module.name}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors that a person can mend end in a line or two and exit code 2, Ctrl-C in 130."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # lost connections are told in a line of ours
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its greetings of several processes
    warnings.filterwarnings(
        "ignore", "Grad strides do not match"
    )  # harmless: weights of shape (1, n) in several processes
    tokens = sys.argv[1:] if arguments is None else arguments
    try:
        # Not app(tokens): that would answer Ctrl-C itself, without saying how to go on.
        command, arguments_of, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        command(*arguments_of.args, **arguments_of.kwargs)
    except Echo:
        raise SystemExit(2) from None
    except UserError as error:
        _fail(str(error), everywhere=isinstance(error, LoneError))
    except CycloptsError as error:
        known = f" {tokens[0]}" if tokens and tokens[0] in app else ""
        _fail(f"{' '.join(str(error).split())} See 'phystrain{known} --help'.")
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        from phystrain.files import mend

        _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}. {mend(error)}")
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        # memory may lack in one of several processes only
        _fail("out of memory. Lower batch_size or channels, or take smaller structures.", everywhere=True)
    except KeyboardInterrupt:
        again = shlex.join(["phystrain", *tokens])
        resumable = ("train", "demo", "fit", "augment", "label", "tune")
        hint = f" Go on with: {again}" if tokens and tokens[0] in resumable else ""
        if is_first():
            print(f"\nstopped.{hint}", file=sys.stderr)
        raise SystemExit(130) from None


def _fail(message: str, *, everywhere: bool = False) -> None:
    """End with a line on standard error: of the first process of a machine, unless this one alone knows."""
    if everywhere or is_first_here():
        where = "" if is_first() or is_child() else f" ({platform.node()})"
        print(f"phystrain{where}: {message}", file=sys.stderr)
    raise SystemExit(2)
