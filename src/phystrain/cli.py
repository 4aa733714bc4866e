"""The command line. Every command is a thin call of a documented function; heavy imports wait until they are needed."""

import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from phystrain import __version__
from phystrain.errors import UserError

app = App(
    name="phystrain",
    help="Interatomic potentials trained with physics, for those who have few quantum-mechanical labels.",
    version=f"phystrain {__version__}",
)

Keys = Annotated[str | None, Parameter(help="name of this label in the file, where it is not a usual one")]


def say(line: str) -> None:
    """One line of what happens, on standard output, at once."""
    print(line, flush=True)


@app.command
def demo(*, output: Path = Path("phystrain-demo"), seed: int = 0) -> None:
    """Run the main job on data that ships with the package: about five minutes on two cores.

    The same small network learns the same few silica frames four ways: from labels only; with the weak losses; beside a
    fitted classical potential that is held fixed; and pretrained on one whose labels are then replayed. All are tested
    on held-out structures and in hot molecular dynamics. A table is printed and report.html written.

    Parameters
    ----------
    output
        Folder for models, plots and report. An interrupted demo goes on when run again.
    seed
        Of the choice of frames, the networks and the dynamics.
    """
    from phystrain.demo import run_demo

    run_demo(output, seed=seed, say=say)


@app.command
def init(
    data: Path,
    *,
    output: Path = Path("run.yaml"),
    test: Path | None = None,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
    force: bool = False,
) -> None:
    """Write a commented run file for your data that trains without editing.

    Parameters
    ----------
    data
        Labelled structures: extended XYZ (plain or compressed), an ASE database, or what ASE reads with energies.
    output
        The run file.
    test
        File of structures to test on, never trained on.
    force
        Replace the file if it exists.
    """
    from phystrain.data.read import LabelKeys
    from phystrain.files import require_writable, write_text
    from phystrain.init import propose

    if output.exists() and output in (data, test):
        raise UserError(f"{output} is the file to read: choose another --output")
    if output.exists() and not force:
        raise UserError(f"{output} exists: choose another --output, or --force to replace it")
    require_writable(output)
    keys = LabelKeys(energy=energy, forces=forces, stress=stress)
    write_text(output, propose(data, keys, test=test, base=output.parent))
    say(f"wrote {output}; train with: {shlex.join(['phystrain', 'train', str(output)])}")


@app.command
def check(data: Path, *, energy: Keys = None, forces: Keys = None, stress: Keys = None) -> None:
    """Say what is in a file: labels and their keys, wrong units or signs, duplicates, overlaps, outliers.

    Ends with exit code 2 if something is so wrong that training would fail or mislead.

    Parameters
    ----------
    data
        Labelled structures.
    """
    from phystrain.data.check import check as examine
    from phystrain.data.read import LabelKeys, read

    report = examine(read(data, keys=LabelKeys(energy=energy, forces=forces, stress=stress)))
    say(str(report))
    if not report.ok:
        raise SystemExit(2)


@app.command
def train(
    run_file: Path,
    *overrides: str,
    output: Path | None = None,
    restart: bool = False,
) -> None:
    """Train all stages of a run file, test the potential and write the report.

    The same command goes on where an interrupted one stopped.

    Parameters
    ----------
    run_file
        YAML file; 'phystrain init' writes one, 'phystrain schema' describes every field.
    overrides
        Changes by dotted path, such as potential.channels=128 or stages.finetune.steps=5000.
    output
        Run folder; runs/NAME beside the run file if not given.
    restart
        Forget what is in the run folder.
    """
    from phystrain import config
    from phystrain.pipeline import run

    settings = config.load(run_file, overrides)
    folder = output or run_file.parent / "runs" / run_file.stem
    run(settings, folder, base=run_file.parent, restart=restart, say=say)


@app.command
def tune(
    run_file: Path,
    *overrides: str,
    search: list[str] | None = None,
    metric: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    pruner: str | None = None,
    output: Path | None = None,
    restart: bool = False,
) -> None:
    """Search weights of the loss and other settings of a run file that lower its validation error.

    Trials that promise little are ended early. The same command goes on where an interrupted one stopped.

    Parameters
    ----------
    run_file
        YAML file; its section tune may say what is searched. RUN.best.yaml is written beside it.
    overrides
        Changes by dotted path that every trial has, such as stages.finetune.steps=500.
    search
        PATH=low..high, PATH=log:low..high or PATH=a,b,c. Can be given several times. The learning rate, weights of the
        loss and displacements of the last stage if not given.
    metric
        Validation figure to lower, such as forces_rmse; energy and forces together if not given.
    trials
        In all, those included that the folder holds already; 30 if not given.
    minutes
        No trial begins after that.
    pruner
        How trials are ended early: median, hyperband or none.
    output
        Folder of the search; runs/NAME-tune beside the run file if not given.
    restart
        Forget what is in the folder.
    """
    from phystrain.tune.space import parse_option
    from phystrain.tune.study import tune as run_search

    ranges = dict(map(parse_option, search)) if search else None
    given = {"search": ranges, "metric": metric, "trials": trials, "minutes": minutes, "pruner": pruner}
    run_search(
        run_file,
        output or run_file.parent / "runs" / f"{run_file.stem}-tune",
        overrides=overrides,
        settings={name: value for name, value in given.items() if value is not None},
        restart=restart,
        say=say,
    )


@app.command
def fit(
    data: Path,
    *,
    kind: str = "eam",
    output: Path = Path("teacher"),
    starts: int | None = None,
    seed: int = 0,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
    restart: bool = False,
) -> None:
    """Fit only a classical potential: its parameters, its errors, its curves, and files for LAMMPS.

    A tenth of the structures is kept back to show errors on.

    Parameters
    ----------
    data
        Labelled structures.
    kind
        Of the potential: eam, morse, finnis_sinclair, born_mayer, ...; several with commas between them, or auto, to
        choose by cross-validation.
    output
        Run folder.
    starts
        From how many sets of starting values the fit begins.
    """
    from phystrain.pipeline import fit_classical

    keys = {"energy": energy, "forces": forces, "stress": stress}
    settings = {} if starts is None else {"starts": starts}
    fit_classical(data, output, kind=kind, settings=settings, seed=seed, keys=keys, restart=restart, say=say)


@app.command
def augment(
    data: Path,
    *settings: str,
    teacher: str,
    output: Path = Path("augmented.xyz"),
    kind: list[str] | None = None,
    rounds: int | None = None,
    seed: int = 0,
    align: bool = True,
    processes: int | None = None,
    energy: Keys = None,
) -> None:
    """Write structures far from equilibrium with the labels of a teacher, as extended XYZ for any trainer.

    The file is written in constant memory, whole or not at all; a picture of the distances before and after goes
    beside it. Labels are kept, so the same command goes on where an interrupted one stopped.

    Parameters
    ----------
    data
        Structures to start from.
    settings
        Settings of the augmentation, such as amplitude=0.1; of several, with the kind, such as rattle.amplitude=0.1.
    teacher
        Run folder or model file; gfn2-xtb, gfn1-xtb or chgnet; or an ASE calculator as module:attribute.
    output
        File; .gz, .bz2 and .xz compress.
    kind
        Of augmentation: pull_perturb, rattle, strain, compress, dimers, hot_md. Can be given several times.
    rounds
        Of pull_perturb.
    seed
        Of the random choices.
    align
        Shift the energies by an offset per element to those of DATA, where it has any.
    processes
        ASE calculators that run at a time; one on each core if not given.
    """
    from phystrain.augmented import augment_file, parse

    of_pulls = [] if rounds is None else [f"pull_perturb.rounds={rounds}"]
    chosen = parse(kind or ["pull_perturb"], [*settings, *of_pulls])
    augment_file(
        data,
        output,
        teacher=teacher,
        settings=chosen,
        seed=seed,
        aligned=align,
        processes=processes,
        keys={"energy": energy},
        say=say,
    )


@app.command
def label(
    data: Path,
    *,
    method: str,
    basis: str,
    output: Path = Path("labelled.xyz"),
    charge: int | None = None,
    spin: int | None = None,
    density_fit: bool = False,
    grid: int = 3,
    all_electron: bool = False,
    forces: bool = True,
    cycles: int = 100,
    processes: int | None = None,
    memory: int = 4000,
    cache: Path | None = None,
) -> None:
    """Label molecules by quantum chemistry with PySCF: DFT with forces, or energies up to CCSD(T) at the basis limit.

    The file is written whole or not at all. Calculations that do not converge are named and left out. Each result is
    kept as soon as it is there, so the same command goes on where an interrupted one stopped.

    Parameters
    ----------
    data
        Molecules; labels they have are dropped.
    method
        A functional, such as pbe or wb97x-v; or hf, mp2, ccsd, ccsd(t) with quotes around it.
    basis
        Basis set; two or three with commas between them, such as cc-pvdz,cc-pvtz, to extrapolate energies to the limit.
    output
        File; .gz, .bz2 and .xz compress.
    charge
        Of every molecule; charge= of each frame, or 0, if not given.
    spin
        Unpaired electrons of every molecule; spin= of each frame, or 0, if not given, and the ground state of atoms.
    density_fit
        Fit the density with an auxiliary basis: faster, a little less exact.
    grid
        Level of a functional's integration grid, 0 to 9.
    all_electron
        Correlate core electrons too; they are frozen otherwise.
    forces
        With forces, where the method has them: hf, functionals, mp2.
    cycles
        Iterations before a calculation counts as not converged.
    processes
        Molecules at a time, one core each; one on each core if not given.
    memory
        MB that each of them may use.
    cache
        Folder of results; in your cache folder if not given.
    """
    from phystrain.label.job import label_file

    settings = {
        "method": method,
        "basis": basis,
        "density_fit": density_fit,
        "grid": grid,
        "all_electron": all_electron,
        "forces": forces,
        "cycles": cycles,
    }
    label_file(
        data,
        output,
        settings=settings,
        charge=charge,
        spin=spin,
        processes=processes,
        memory=memory,
        cache=cache,
        say=say,
    )


@app.command
def evaluate(
    model: Path,
    data: Path,
    *,
    output: Path | None = None,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
) -> None:
    """Errors of a model on labelled structures: in all, per element and per group, with parity plots.

    Parameters
    ----------
    model
        Run folder or model file.
    data
        Labelled structures.
    output
        Folder for parity plots and figures; none are written if not given.
    """
    from phystrain.trained import evaluate_model

    keys = {"energy": energy, "forces": forces, "stress": stress}
    evaluate_model(model, data, output=output, keys=keys, say=say)


@app.command
def audit(
    model: Path,
    *,
    start: Path | None = None,
    temperature: list[float] | None = None,
    replicas: int = 4,
    picoseconds: float = 2.0,
    timestep: float | None = None,
    output: Path | None = None,
    seed: int = 0,
) -> None:
    """Put a model to the reliability tests.

    Dimer curves of its element pairs, finite differences, compression, energy drift, survival in hot dynamics, heating
    to failure, and distances between atoms against labelled frames.

    Parameters
    ----------
    model
        Run folder or model file.
    start
        Structures to start dynamics from; labelled ones also give errors. The run's own held-out structures if not
        given, or else those it was trained on, of which no errors are measured.
    temperature
        K; repeat for several. That of the training data first.
    output
        Folder for results, plots and page; MODEL-audit if not given.
    """
    from phystrain.trained import audit_model

    audit_model(
        model,
        start=start,
        temperatures=temperature,
        replicas=replicas,
        picoseconds=picoseconds,
        timestep=timestep,
        output=output,
        seed=seed,
        say=say,
    )


@app.command
def md(
    model: Path,
    start: Path,
    *,
    temperature: float,
    picoseconds: float = 10.0,
    timestep: float | None = None,
    ensemble: str = "nvt",
    replicas: int = 1,
    output: Path = Path("trajectory.xyz"),
    every: int = 100,
    seed: int = 0,
) -> None:
    """Molecular dynamics with guards that stop what becomes unphysical, name the reason and keep the frame.

    Parameters
    ----------
    model
        Run folder or model file.
    start
        Structure, or several that run side by side.
    temperature
        K.
    timestep
        fs; 1, or 0.5 with hydrogen, if not given.
    ensemble
        nvt (Langevin) or nve (velocity Verlet).
    replicas
        Copies of each structure, with velocities of their own.
    output
        Frames, extended XYZ; failing frames go to OUTPUT with '-failed' in its name.
    every
        Steps between frames.
    """
    from phystrain.trained import run_md

    run_md(
        model,
        start,
        temperature=temperature,
        picoseconds=picoseconds,
        timestep=timestep,
        ensemble=ensemble,
        replicas=replicas,
        output=output,
        every=every,
        seed=seed,
        say=say,
    )


@app.command
def export(model: Path, *, output: Path, to: str = "lammps") -> None:
    """Write a classical potential in the files of another program.

    Parameters
    ----------
    model
        Run folder or model file.
    output
        New folder for the files.
    to
        Program: lammps.
    """
    from phystrain.export import export_model

    export_model(model, output, to=to, say=say)


@app.command
def compare(*runs: Path, output: Path = Path("comparison")) -> None:
    """Put finished runs or audits side by side: one table, one page.

    Parameters
    ----------
    runs
        Run folders or audit folders.
    output
        Folder for the page and plots.
    """
    from phystrain.trained import compare_runs

    compare_runs(runs, output, say=say)


@app.command
def schema() -> None:
    """Print the JSON schema of run files, for editors and for reading."""
    import json

    from phystrain.config import RunConfig

    say(json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False))


@app.command
def info(model: Path | None = None, *, kinds: bool = False) -> None:
    """Say what a model file is; with --kinds, what can be named in a run file.

    Parameters
    ----------
    model
        Run folder or model file.
    kinds
        List every potential (with its paper, heads and number of parameters), objective, augmentation and
        reliability test.
    """
    from phystrain.catalogue import describe_kinds
    from phystrain.trained import describe_model

    if model is None and not kinds:
        raise UserError("give a model file or run folder, or --kinds")
    if kinds:
        say(describe_kinds())
    if model is not None:
        say(describe_model(model))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors that a person can mend end in a line or two and exit code 2, Ctrl-C in 130."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its greetings of several processes
    warnings.filterwarnings(
        "ignore", "Grad strides do not match"
    )  # harmless: weights of shape (1, n) in several processes
    tokens = sys.argv[1:] if arguments is None else arguments
    try:
        # Not app(tokens): that would answer Ctrl-C itself, without saying how to go on.
        command, arguments_of, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        command(*arguments_of.args, **arguments_of.kwargs)
    except UserError as error:
        _fail(str(error))
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
        if not _is_lack_of_memory(error):
            raise
        _fail("out of memory. Lower batch_size or channels, or take smaller structures.")
    except KeyboardInterrupt:
        again = shlex.join(["phystrain", *tokens])
        resumable = ("train", "demo", "fit", "augment", "label", "tune")
        hint = f" Go on with: {again}" if tokens and tokens[0] in resumable else ""
        print(f"\nstopped.{hint}", file=sys.stderr)
        raise SystemExit(130) from None


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch could not get the memory it asked for, on CPU or GPU."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return named or isinstance(error, MemoryError)


def _fail(message: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one process speaks for all
        print(f"phystrain: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
