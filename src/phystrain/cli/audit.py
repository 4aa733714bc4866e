"""The reliability tests."""

from pathlib import Path
from typing import Literal

from phystrain.cli._app import app, say


@app.command
def audit(
    model: Path | None = None,
    *,
    ase: str | None = None,
    argument: list[str] | None = None,
    cutoff: float | None = None,
    start: Path | None = None,
    train: Path | None = None,
    temperature: list[float] | None = None,
    replicas: int = 4,
    minutes: float = 15.0,
    picoseconds: float | None = None,
    timestep: float | None = None,
    alone: bool = False,
    fail_under: Literal["safe", "limited", "unsafe"] = "unsafe",
    output: Path | None = None,
    seed: int = 0,
    reference: Path | None = None,
    reference_interval: float | None = None,
    reference_temperature: float | None = None,
) -> None:
    """Put a model, or any calculator of ASE, to the reliability tests, and give a verdict.

    Dimer curves of its element pairs, finite differences, compression, energy drift, survival in hot dynamics, heating
    to failure, and distances between atoms against labelled frames. A run is tested beside what it holds to compare
    with: the same network without physics, and the classical teacher. docs/verdict.md says what the verdict means.

    Parameters
    ----------
    model
        Run folder or model file. With --ase a file of structures: phystrain audit --ase module:calculator DATA.xyz
    ase
        Calculator of ASE to test instead, as module:attribute (a calculator, or what makes one; modules of this folder
        are found too), or by name: gfn2-xtb, gfn1-xtb, chgnet. It runs the code of that module.
    argument
        For --ase: an argument of the calculator, such as method=GFN1-xTB; repeat for several.
    cutoff
        For --ase: distance in Å beyond which its atoms do not feel each other. Tests of it do not apply if not given.
    start
        Structures to start dynamics from; labelled ones also give errors. The run's own held-out structures if not
        given, or else those it was trained on, of which no errors are measured. With --ase those of DATA.
    train
        Structures that it was trained on; those of the run if not given.
    temperature
        K; repeat for several. That of the training data first; needed unless the run file named it.
    minutes
        Wall time for all tests, from which the lengths of the dynamics follow.
    picoseconds
        Length of every run in dynamics, instead of minutes.
    alone
        Leave out what the run holds to compare with.
    fail_under
        Worst verdict that ends in exit code 0; a worse one ends in 1. safe: fails for limited and unsafe; limited:
        fails for unsafe only; unsafe: never fails. Mistakes of the user end in 2.
    output
        Folder for results, plots and page; MODEL-audit if not given.
    reference
        Trajectory of the reference method, frames equally spaced in time: structure, diffusion and vibrations in
        dynamics are compared with it.
    reference_interval
        Time between its frames, fs; what the frames say if not given (interval_fs, time_fs, time_ps).
    reference_temperature
        K; what the frames say if not given (temperature_K).
    """
    from phystrain.reference import read_reference
    from phystrain.trained import audit_model
    from phystrain.verdict.examined import named_arguments

    found = audit_model(
        model,
        ase=ase,
        arguments=named_arguments(argument or []),
        cutoff=cutoff,
        start=start,
        train=train,
        temperatures=temperature,
        replicas=replicas,
        minutes=minutes,
        picoseconds=picoseconds,
        timestep=timestep,
        alone=alone,
        output=output,
        seed=seed,
        reference=None if reference is None else read_reference(reference, reference_interval, reference_temperature),
        say=say,
    )
    if found.verdict is None or found.verdict.below(fail_under):
        raise SystemExit(1)
