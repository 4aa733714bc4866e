"""A classical potential alone."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


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
