"""Structures with a teacher's labels."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


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
