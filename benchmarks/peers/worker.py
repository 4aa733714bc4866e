"""Makes steps of one network when it is told to. Run by the interpreter of an environment that has its package.

Usage: ``python worker.py NETWORK STRUCTURES.xyz WORK``. It prints ``ready``, the number of parameters, then
for each line on standard input makes one step and prints its processor and wall time in ms.

The work is ``train``: energy, forces, squared errors of both, backward, Adam; or ``forces``: energy and forces.
Neighbour lists are made before. All networks: 128 channels, 3 layers, 20 radial functions, 5 Å, float32.
Memory is kept by the allocator for all alike.
"""

import ctypes
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

CUTOFF = 5.0
CHANNELS, LAYERS, RADIAL = 128, 3, 20


def keep_memory() -> None:
    """Tell glibc not to give memory back after every large tensor, as phystrain does by itself."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        libc.mallopt(option, value)


def of_phystrain(kind: str, frames: list, *, compiled: bool) -> tuple:
    """Ours."""
    import torch

    from phystrain import compiled as code
    from phystrain.derive import evaluate
    from phystrain.graph import AtomGraph
    from phystrain.potentials import build
    from phystrain.statistics import Statistics

    species = tuple(sorted({int(number) for frame in frames for number in frame.numbers}))
    settings = {"kind": kind, "channels": CHANNELS, "layers": LAYERS, "radial_count": RADIAL, "cutoff": CUTOFF}
    if kind == "schnet":
        settings["filters"] = CHANNELS
    potential = build(settings, Statistics.bare(species))
    graph = AtomGraph.from_ase(frames, CUTOFF, dtype=torch.float32)
    trained = code.faster(potential, training=True) if compiled else potential
    tested = code.faster(potential) if compiled else potential

    def predict(train: bool) -> tuple:
        found = evaluate(trained if train else tested, graph, create_graph=train)
        return found.energy, found.forces

    return potential, predict


def of_schnetpack(kind: str, frames: list) -> tuple:
    """SchNetPack's, assembled from its modules: its top level needs packages that torch 2.13 has no room for."""
    import importlib.util

    package = types.ModuleType("schnetpack")
    package.__path__ = importlib.util.find_spec("schnetpack").submodule_search_locations
    sys.modules["schnetpack"] = package
    import schnetpack.properties as names
    import torch
    from schnetpack.nn.cutoff import CosineCutoff
    from schnetpack.nn.radial import GaussianRBF

    package.properties = names
    import schnetpack.nn

    package.nn = schnetpack.nn
    from schnetpack.representation.painn import PaiNN
    from schnetpack.representation.schnet import SchNet

    made = {"painn": PaiNN, "schnet": SchNet}[kind](
        n_atom_basis=CHANNELS,
        n_interactions=LAYERS,
        radial_basis=GaussianRBF(n_rbf=RADIAL, cutoff=CUTOFF),
        cutoff_fn=CosineCutoff(CUTOFF),
    )
    readout = schnetpack.nn.build_mlp(n_in=CHANNELS, n_out=1)
    model = torch.nn.ModuleDict({"representation": made, "readout": readout})
    data = flat(frames)
    inputs = {names.Z: data["species"], names.idx_i: data["centre"], names.idx_j: data["neighbour"]}

    def predict(train: bool) -> tuple:
        positions = data["positions"].clone().requires_grad_()
        vectors = positions[data["neighbour"]] - positions[data["centre"]] + data["shifts"]
        features = made({**inputs, names.Rij: vectors})["scalar_representation"]
        atomic = readout(features).squeeze(1)
        (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=train)
        return torch.zeros(len(frames)).index_add(0, data["system"], atomic), -gradient

    return model, predict


def of_graph_pes(kind: str, frames: list) -> tuple:
    """graph-pes's."""
    from graph_pes import AtomicGraph
    from graph_pes.atomic_graph import to_batch
    from graph_pes.models import PaiNN, SchNet

    maker = {
        "painn": lambda: PaiNN(channels=CHANNELS, radial_features=RADIAL, layers=LAYERS, cutoff=CUTOFF),
        "schnet": lambda: SchNet(channels=CHANNELS, expansion_features=RADIAL, layers=LAYERS, cutoff=CUTOFF),
    }[kind]
    model = maker()
    batch = to_batch([AtomicGraph.from_ase(frame, cutoff=CUTOFF) for frame in frames])

    def predict(train: bool) -> tuple:
        model.train(train)
        found = model.predict(batch, properties=["energy", "forces"])
        return found["energy"], found["forces"]

    return model, predict


def flat(frames: list) -> dict:
    """Structures and neighbour lists as flat tensors."""
    import numpy as np
    import torch
    from matscipy.neighbours import neighbour_list

    parts: dict[str, list] = {"centre": [], "neighbour": [], "shifts": [], "system": []}
    first = 0
    for number, frame in enumerate(frames):
        if not frame.cell.any():  # it wants a cell, used or not
            frame.center(vacuum=2 * CUTOFF)
        i, j, shifts = neighbour_list("ijS", frame, CUTOFF)
        parts["centre"].append(i + first)
        parts["neighbour"].append(j + first)
        parts["shifts"].append(shifts @ frame.cell.array)
        parts["system"].append(np.full(len(frame), number))
        first += len(frame)
    found = {name: torch.from_numpy(np.concatenate(values)) for name, values in parts.items()}
    found["shifts"] = found["shifts"].float()
    found["positions"] = torch.from_numpy(np.concatenate([frame.positions for frame in frames])).float()
    found["species"] = torch.from_numpy(np.concatenate([frame.numbers for frame in frames]))
    return found


NETWORKS: dict[str, Callable[[list], tuple]] = {
    **{f"phystrain {kind}": lambda f, kind=kind: of_phystrain(kind, f, compiled=False) for kind in ("painn", "schnet")},
    **{
        f"phystrain {kind}, compiled": lambda f, kind=kind: of_phystrain(kind, f, compiled=True)
        for kind in ("painn", "schnet")
    },
    **{f"schnetpack {kind}": lambda f, kind=kind: of_schnetpack(kind, f) for kind in ("painn", "schnet")},
    **{f"graph-pes {kind}": lambda f, kind=kind: of_graph_pes(kind, f) for kind in ("painn", "schnet")},
}


def main(network: str, file: str, work: str) -> None:
    """Make the network, warm up, and answer."""
    import ase.io
    import torch

    keep_memory()
    torch.manual_seed(0)
    frames = ase.io.read(Path(file), ":")
    model, predict = NETWORKS[network](frames)
    rng = torch.Generator().manual_seed(0)
    atoms = sum(map(len, frames))
    energies, forces = torch.randn(len(frames), generator=rng), torch.randn(atoms, 3, generator=rng)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6)

    def step() -> None:
        energy, force = predict(work == "train")
        if work == "train":
            loss = (energy - energies).square().mean() + (force - forces).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    for _ in range(3):
        step()
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"ready {count}", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        print(1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
