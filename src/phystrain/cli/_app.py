"""What all verbs share: the application they belong to, types of their options, and their voice."""

from typing import Annotated

from cyclopts import App, Parameter

from phystrain import __version__

app = App(
    name="phystrain",
    help="Interatomic potentials trained with physics, for those who have few quantum-mechanical labels.",
    version=f"phystrain {__version__}",
)

Keys = Annotated[str | None, Parameter(help="name of this label in the file, where it is not a usual one")]


def say(line: str) -> None:
    """One line of what happens, on standard output, at once."""
    print(line, flush=True)
