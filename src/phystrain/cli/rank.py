"""Which structures to label next."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def rank(
    model: Path,
    structures: Path,
    *,
    count: int = 20,
    output: Path = Path("next.xyz"),
    apart: float | None = None,
    contact: float = 0.5,
) -> None:
    """The structures that the model is least sure of, most uncertain first, no two of them alike: label these next.

    Parameters
    ----------
    model
        Run folder or model file, trained with snapshots or members in its last stage.
    structures
        Structures to choose from, such as frames of dynamics.
    count
        How many, at most.
    output
        What is chosen, extended XYZ, with spread (eV/Å) and number in the file of each.
    apart
        A structure is left out if the distances around its most uncertain atom are, by this many Å in the root mean
        square, those around an atom of a chosen structure; 0 takes all. If not given 0.1; where that leaves too few,
        the farthest of the others are taken, down to 0.025.
    contact
        Leave out structures with a distance shorter than this times the sum of the two covalent radii.
    """
    from phystrain.ranked import rank_structures

    rank_structures(model, structures, count=count, output=output, apart=apart, contact=contact, say=say)
