"""A process that runs a calculator of ASE for another one. Started as a script by ``_pool.py``; imports no phystrain.

Standard input brings pickled messages, the original standard output takes the answers. What the calculator itself
prints there is dropped. Only the process that started this one writes to its input.
"""

import importlib
import os
import pickle
import signal
import sys
from typing import Any, BinaryIO


def calculate(calculator: Any, atoms: Any, want: frozenset[str]) -> tuple[float, Any, Any]:
    """Energy (free energy where there is one: the forces are its gradient), forces and stress; ``None`` if not asked.

    Args:
        calculator: of ASE.
        atoms: periodic in three directions if stress is wanted.
        want: any of ``energy``, ``forces``, ``stress``.
    """
    atoms.calc = calculator
    total = atoms.get_potential_energy()
    energy = calculator.results.get("free_energy", total)
    forces = atoms.get_forces() if "forces" in want else None
    stress = atoms.get_stress() if "stress" in want else None
    return float(energy), forces, stress


def find(path: str) -> Any:
    """What an import path, ``module:attribute``, names."""
    module, _, attribute = path.partition(":")
    found = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def make(path: str, arguments: dict[str, Any]) -> Any:
    """The calculator that an import path names: itself, or what the class or function there makes."""
    found = find(path)
    ready = hasattr(found, "get_potential_energy") and not isinstance(found, type)
    return found if ready else found(**arguments)


def serve(messages: BinaryIO, answers: BinaryIO) -> None:
    """Make the calculator, say whether that went well, then answer tasks until the input ends.

    An answer is the labels, or ``None``, and the text of what went wrong.
    """

    def answer(content: object) -> None:
        pickle.dump(content, answers)
        answers.flush()

    sys.path[:] = pickle.load(messages)  # noqa: S301
    path, arguments = pickle.load(messages)  # noqa: S301
    try:
        from ase import Atoms

        calculator = make(path, arguments)
    except Exception as failure:
        answer((None, f"{type(failure).__name__}: {failure}"))
        return
    answer((None, ""))
    while True:
        try:
            geometry, want = pickle.load(messages)  # noqa: S301
        except EOFError:
            return
        try:
            calculator = make(path, arguments) if calculator is None else calculator
            answer((calculate(calculator, Atoms(**geometry), want), ""))
        except Exception as failure:  # a calculator can raise anything, and the others can still be labelled
            calculator = None  # it may be left in a broken state
            answer((None, f"{type(failure).__name__}: {failure}"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the input
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    serve(sys.stdin.buffer, private)
