"""Files into a store."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


@app.command
def convert(
    data: Path,
    *more: Path,
    output: Path,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
    weight: Keys = None,
) -> None:
    """Write labelled structures to a store: a folder that opens at once and is read in place, for large sets.

    Files are read one after another in constant memory, with all checks, and the store is written whole or not at all.
    It can be given wherever a file with structures can. Names of labels are settled here.

    Parameters
    ----------
    data
        Labelled structures: extended XYZ (.gz, .bz2, .xz too), ASE database (.db, .aselmdb), a store, or another format
        that ASE reads.
    more
        Further files, which follow in the same store.
    output
        The store, such as train.store.
    """
    from phystrain.data.convert import convert as to_store
    from phystrain.data.read import LabelKeys, read

    keys = LabelKeys(energy=energy, forces=forces, stress=stress, weight=weight)
    to_store([data, *more], output, keys=keys, say=say)
    say(read(output).summary())
