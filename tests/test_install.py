"""What gets installed: its wheels for CUDA torch break other packages beside a CPU torch, so torchvision must not."""

import re
from importlib import metadata


def closure(name: str) -> set[str]:
    """Every distribution that a distribution asks for, its extras included, as far as they are installed."""
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        try:
            asked = metadata.requires(current) or []
        except metadata.PackageNotFoundError:
            continue
        # extras of others are theirs to ask for
        wanted = [line for line in asked if current == "phystrain" or "extra ==" not in line]
        waiting += [re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in wanted]
    return found


def test_nothing_asks_for_torchvision():
    everything = closure("phystrain")
    assert {"torch", "ase", "vesin", "pytest"} <= everything
    assert not everything & {"torchvision", "torchaudio"}
