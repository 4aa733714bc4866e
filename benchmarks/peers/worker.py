"""Makes steps of one network when it is told to. Run by the interpreter of an environment that has its package.

Usage: ``python worker.py NETWORK STRUCTURES.xyz WORK``. It prints ``ready``, the number of parameters, then
for each line on standard input makes one step and prints its processor and wall time in ms.

The work is ``train``: energy, forces, squared errors of both, backward, Adam; ``forces``: energy and forces, with
neighbour lists made before; or ``md``: a step of velocity Verlet of ASE with the first structure. There ours is the
calculator that phystrain ships, and a peer's is the least that it could be: a neighbour list of matscipy (for MACE its
own batch of one) and the network. Where ours is compiled, peers without a compiled form of their own stay as they are.
5 Å, float32. SchNet and PaiNN have 128 channels, 3 layers and 20 radial functions; the others are of the size that
their authors publish (see :data:`SIZES` and the functions). Memory is kept by the allocator for all alike.
"""

import ctypes
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CUTOFF = 5.0
CHANNELS, LAYERS, RADIAL = 128, 3, 20
SIZES: dict[str, dict] = {
    "painn": {"channels": CHANNELS, "layers": LAYERS, "radial_count": RADIAL},
    "schnet": {"channels": CHANNELS, "filters": CHANNELS, "layers": LAYERS, "radial_count": RADIAL},
    "m3gnet": {"preset": "matgl"},
    "tensornet": {"channels": 128, "layers": 2, "radial_count": 32, "envelope": "cosine"},
    "torchmd_et": {"channels": 128, "layers": 4, "heads": 8, "radial_count": 32, "envelope": "cosine"},
}
"""Of ours."""


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

    potential = build({"kind": kind, "cutoff": CUTOFF, **SIZES[kind]}, Statistics.bare(elements(frames)))
    trained = code.faster(potential, training=True) if compiled else potential
    tested = code.faster(potential) if compiled else potential

    def listed(some: list) -> Callable:
        graph = AtomGraph.from_ase(some, CUTOFF, dtype=torch.float32)

        def predict(train: bool) -> tuple:
            found = evaluate(trained if train else tested, graph, create_graph=train)
            return found.energy, found.forces

        return predict

    def calculator() -> Any:
        from phystrain.interfaces.ase import PhystrainCalculator

        return PhystrainCalculator(tested)

    return potential, listed, calculator


def of_schnetpack(kind: str) -> tuple:
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

    def listed(some: list) -> Callable:
        data = flat(some)
        inputs = {names.Z: data["species"], names.idx_i: data["centre"], names.idx_j: data["neighbour"]}

        def predict(train: bool) -> tuple:
            positions = data["positions"].clone().requires_grad_()
            vectors = positions[data["neighbour"]] - positions[data["centre"]] + data["shifts"]
            features = made({**inputs, names.Rij: vectors})["scalar_representation"]
            atomic = readout(features).squeeze(1)
            (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=train)
            return torch.zeros(len(some)).index_add(0, data["system"], atomic), -gradient

        return predict

    return model, listed, None


def of_graph_pes(kind: str) -> tuple:
    """graph-pes's."""
    from graph_pes import AtomicGraph
    from graph_pes.atomic_graph import to_batch
    from graph_pes.models import PaiNN, SchNet

    maker = {
        "painn": lambda: PaiNN(channels=CHANNELS, radial_features=RADIAL, layers=LAYERS, cutoff=CUTOFF),
        "schnet": lambda: SchNet(channels=CHANNELS, expansion_features=RADIAL, layers=LAYERS, cutoff=CUTOFF),
    }[kind]
    model = maker()

    def listed(some: list) -> Callable:
        batch = to_batch([AtomicGraph.from_ase(frame, cutoff=CUTOFF) for frame in some])

        def predict(train: bool) -> tuple:
            model.train(train)
            found = model.predict(batch, properties=["energy", "forces"])
            return found["energy"], found["forces"]

        return predict

    return model, listed, None


def nequip_model(mode: str, symbols: list[str], neighbours: float, scale: float) -> Any:
    """NequIP's preset S; ``compile`` compiles its training, not predictions.

    Args:
        mode: ``eager`` or ``compile``.
        symbols: of the elements.
        neighbours: mean number of an atom.
        scale: eV, of the energy of an atom, as its authors take the root mean square of the forces.
    """
    import torch
    from nequip.model import PresetNequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    return PresetNequIPGNNModel(
        preset="S",
        seed=torch.initial_seed(),
        model_dtype="float32",
        type_names=symbols,
        r_max=CUTOFF,
        avg_num_neighbors=neighbours,
        per_type_energy_shifts=0.0,
        per_type_energy_scales=scale,
        compile_mode=mode,
    )


def of_nequip(mode: str, frames: list) -> tuple:
    """NequIP's preset S."""
    import torch

    symbols = sorted({symbol for frame in frames for symbol in frame.get_chemical_symbols()})
    model = nequip_model(mode, symbols, 20.0, 1.0)

    def listed(some: list) -> Callable:
        data = flat(some)
        types = [symbols.index(symbol) for frame in some for symbol in frame.get_chemical_symbols()]
        given = {
            "pos": data["positions"],
            "edge_index": torch.stack([data["centre"], data["neighbour"]]).long(),
            "atom_types": torch.tensor(types),
            "batch": data["system"].long(),
            "num_atoms": torch.tensor([len(frame) for frame in some]),
        }
        if any(frame.pbc.any() for frame in some):
            given["cell"] = torch.tensor(np.stack([frame.cell.array for frame in some])).float()
            given["edge_cell_shift"] = data["images"].float()

        def predict(train: bool) -> tuple:
            model.train(train)
            found = model(dict(given))
            return found["total_energy"].squeeze(1), found["forces"]

        return predict

    return model, listed, None


def of_matgl(kind: str, frames: list) -> tuple:
    """MatGL's M3GNet, with its defaults but for the cut-off."""
    import torch
    from matgl.graph._compute import create_line_graph
    from matgl.models import M3GNet
    from torch_geometric.data import Data

    assert kind == "m3gnet"
    symbols = tuple(sorted({symbol for frame in frames for symbol in frame.get_chemical_symbols()}))
    model = M3GNet(element_types=symbols, is_intensive=False, use_smooth=True, cutoff=CUTOFF, threebody_cutoff=4.0)

    def listed(some: list) -> Callable:
        data = flat(some)
        edges = torch.stack([data["centre"], data["neighbour"]]).long()
        vectors = data["positions"][edges[1]] - data["positions"][edges[0]] + data["shifts"]
        lines = create_line_graph(edges, vectors.norm(dim=1), vectors, data["shifts"], len(data["species"]), 4.0)
        types = torch.tensor([symbols.index(symbol) for frame in some for symbol in frame.get_chemical_symbols()])

        def predict(train: bool) -> tuple:
            positions = data["positions"].clone().requires_grad_()
            given = Data(
                node_type=types,
                pos=positions,
                edge_index=edges,
                pbc_offshift=data["shifts"],
                batch=data["system"].long(),
            )
            given.num_graphs = len(some)
            energy = model(g=given, l_g=lines)
            (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=train)
            return energy, -gradient

        return predict

    return model, listed, None


def of_torchmd_net(kind: str) -> tuple:
    """TorchMD-NET's, which makes its neighbour lists in each step, by a search that is a small part of it."""
    import torch
    from torchmdnet.models.model import create_model

    own = {
        "tensornet": {"model": "tensornet", "num_layers": 2, "equivariance_invariance_group": "O(3)"},
        "torchmd_et": {
            **{"model": "equivariant-transformer", "num_layers": 4, "num_heads": 8, "attn_activation": "silu"},
            **{"distance_influence": "both", "neighbor_embedding": True, "vector_cutoff": True},
        },
    }[kind]
    shared = {
        **{"embedding_dimension": 128, "num_rbf": 32, "rbf_type": "expnorm", "trainable_rbf": False},
        **{"activation": "silu", "cutoff_lower": 0.0, "cutoff_upper": CUTOFF, "max_z": 20, "max_num_neighbors": 64},
        **{"precision": 32, "derivative": True, "atom_filter": -1, "prior_model": None, "output_model": "Scalar"},
    }
    model = create_model({**shared, **own, "reduce_op": "sum"})

    def listed(some: list) -> Callable:
        data = flat(some)
        periodic = all(frame.pbc.all() for frame in some)
        box = torch.tensor(np.stack([frame.cell.array for frame in some])).float() if periodic else None

        def predict(train: bool) -> tuple:
            model.train(train)
            positions = data["positions"].clone().requires_grad_()
            energy, forces = model(data["species"].long(), positions, data["system"].long(), box)
            return energy.squeeze(1), forces

        return predict

    return model, listed, None


def of_mace(kind: str, frames: list) -> tuple:
    """MACE of its small size: 128 scalars, 2 layers, harmonics to degree 3, correlation 3."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its e3nn keeps constants in an old format
    import torch
    from e3nn import o3
    from mace import data as mace_data
    from mace import modules
    from mace.tools import AtomicNumberTable, torch_geometric

    assert kind == "small"
    table = AtomicNumberTable(list(elements(frames)))
    model = modules.ScaleShiftMACE(
        **{"r_max": CUTOFF, "num_bessel": 8, "num_polynomial_cutoff": 5, "max_ell": 3, "num_interactions": 2},
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        **{"num_elements": len(table), "hidden_irreps": o3.Irreps("128x0e"), "MLP_irreps": o3.Irreps("16x0e")},
        **{"gate": torch.nn.functional.silu, "atomic_energies": np.zeros(len(table)), "avg_num_neighbors": 20.0},
        **{"atomic_numbers": table.zs, "correlation": 3, "atomic_inter_scale": 1.0, "atomic_inter_shift": 0.0},
    )

    def listed(some: list) -> Callable:
        parts = [
            mace_data.AtomicData.from_config(mace_data.config_from_atoms(frame), z_table=table, cutoff=CUTOFF)
            for frame in some
        ]
        batch = next(iter(torch_geometric.dataloader.DataLoader(dataset=parts, batch_size=len(parts)))).to_dict()

        def predict(train: bool) -> tuple:
            found = model(dict(batch), training=train, compute_force=True)
            return found["energy"], found["forces"]

        return predict

    return model.float(), listed, None


def elements(frames: list) -> tuple[int, ...]:
    """Atomic numbers."""
    return tuple(sorted({int(number) for frame in frames for number in frame.numbers}))


def flat(frames: list) -> dict:
    """Structures and neighbour lists as flat tensors."""
    import torch
    from matscipy.neighbours import neighbour_list

    parts: dict[str, list] = {"centre": [], "neighbour": [], "images": [], "shifts": [], "system": []}
    first = 0
    for number, frame in enumerate(frames):
        if not frame.cell.any():  # it wants a cell, used or not
            frame.center(vacuum=2 * CUTOFF)
        i, j, shifts = neighbour_list("ijS", frame, CUTOFF)
        parts["centre"].append(i + first)
        parts["neighbour"].append(j + first)
        parts["images"].append(shifts)
        parts["shifts"].append(shifts @ frame.cell.array)
        parts["system"].append(np.full(len(frame), number))
        first += len(frame)
    found = {name: torch.from_numpy(np.concatenate(values)) for name, values in parts.items()}
    found["shifts"] = found["shifts"].float()
    found["positions"] = torch.from_numpy(np.concatenate([frame.positions for frame in frames])).float()
    found["species"] = torch.from_numpy(np.concatenate([frame.numbers for frame in frames]))
    return found


NETWORKS: dict[str, Callable[[list], tuple]] = {
    **{f"phystrain {kind}": lambda f, kind=kind: of_phystrain(kind, f, compiled=False) for kind in SIZES},
    **{f"phystrain {kind}, compiled": lambda f, kind=kind: of_phystrain(kind, f, compiled=True) for kind in SIZES},
    **{f"schnetpack {kind}": lambda _, kind=kind: of_schnetpack(kind) for kind in ("painn", "schnet")},
    **{f"graph-pes {kind}": lambda _, kind=kind: of_graph_pes(kind) for kind in ("painn", "schnet")},
    "nequip S": lambda f: of_nequip("eager", f),
    "nequip S, compiled": lambda f: of_nequip("compile", f),
    "matgl m3gnet": lambda f: of_matgl("m3gnet", f),
    **{f"torchmd-net {kind}": lambda _, kind=kind: of_torchmd_net(kind) for kind in ("tensornet", "torchmd_et")},
    "mace small": lambda f: of_mace("small", f),
}


def trainer(model: Any, predict: Callable, frames: list) -> Callable[[], None]:
    """Steps of training."""
    import torch

    rng = torch.Generator().manual_seed(0)
    energies = torch.randn(len(frames), generator=rng)
    forces = torch.randn(sum(map(len, frames)), 3, generator=rng)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6)

    def step() -> None:
        energy, force = predict(True)
        loss = (energy - energies).square().mean() + (force - forces).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def mover(listed: Callable, calculator: Callable | None, atoms: Any) -> Callable[[], None]:
    """Steps of molecular dynamics through ASE."""
    from ase import units
    from ase.calculators.calculator import Calculator, all_changes
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    class Least(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            energy, forces = listed([atoms])(False)
            self.results = {"energy": float(energy), "forces": forces.detach().numpy()}

    atoms.calc = Least() if calculator is None else calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=0.1 * units.fs)
    return lambda: dynamics.run(1)


def main(network: str, file: str, work: str) -> None:
    """Make the network, warm up, and answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # packages print what they like
    import ase.io
    import torch

    keep_memory()
    torch.manual_seed(0)
    frames = ase.io.read(Path(file), ":")
    model, listed, calculator = NETWORKS[network](frames)
    if work == "md":
        step = mover(listed, calculator, frames[0])
    else:
        predict = listed(frames)
        step = trainer(model, predict, frames) if work == "train" else lambda: predict(False)
    for _ in range(5):
        step()
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"ready {count}", file=answers, flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        taken = 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)
        print(*taken, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
