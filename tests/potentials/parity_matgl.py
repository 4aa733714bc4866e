"""Energies and forces of matgl's M3GNet with random weights. Run by the interpreter of an environment that has it.

Usage: ``python parity_matgl.py STRUCTURES.xyz RESULT.json``
"""

import json
import sys
from pathlib import Path

import ase.io
import matgl
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from matgl.layers import SphericalBesselWithHarmonics
from matgl.models import M3GNet
from torch_geometric.data import Data

SIZES = {"channels": 12, "layers": 3, "radial_count": 2, "degrees": 4, "cutoff": 4.5, "three_body_cutoff": 3.6}
"""Different ones, so that nothing can be taken for another."""


def graph(atoms: ase.Atoms) -> Data:
    """A graph as the network takes it, the edges sorted by their centre."""
    centre, neighbour, images = neighbor_list("ijS", atoms, SIZES["cutoff"])
    return Data(
        node_type=torch.from_numpy(np.searchsorted(sorted(set(SPECIES)), atoms.numbers)),
        pos=torch.from_numpy(atoms.positions).requires_grad_(),
        edge_index=torch.from_numpy(np.stack([centre, neighbour])),
        pbc_offshift=torch.from_numpy(images @ atoms.cell.array),
    )


def results(frames: list[ase.Atoms], smooth: bool, three_body_smooth: bool) -> dict:
    """Weights of a network with these radial functions, and what it says of the structures."""
    torch.manual_seed(0)
    model = M3GNet(
        element_types=tuple(ase.data.chemical_symbols[number] for number in sorted(set(SPECIES))),
        is_intensive=False,
        dim_node_embedding=SIZES["channels"],
        dim_edge_embedding=SIZES["channels"],
        units=SIZES["channels"],
        nblocks=SIZES["layers"],
        max_n=SIZES["radial_count"],
        max_l=SIZES["degrees"],
        cutoff=SIZES["cutoff"],
        threebody_cutoff=SIZES["three_body_cutoff"],
        use_smooth=smooth,
    )
    basis = {
        name: SIZES[key] for name, key in {"max_n": "radial_count", "max_l": "degrees", "cutoff": "cutoff"}.items()
    }
    model.basis_expansion = SphericalBesselWithHarmonics(**basis, use_smooth=three_body_smooth, use_phi=False)
    predictions = []
    for atoms in frames:
        given = graph(atoms)
        energy = model(g=given)
        (gradient,) = torch.autograd.grad(energy, given.pos)
        predictions.append({"energy": energy.item(), "forces": (-gradient).tolist()})
    weights = {name: parameter.detach().tolist() for name, parameter in model.named_parameters()}
    return {"weights": weights, "predictions": predictions}


if __name__ == "__main__":
    matgl.set_default_dtype("float", 64)
    # rounded to single precision when matgl is imported
    roots = np.load(Path(matgl.__file__).parent / "utils" / "sb_roots.npy")
    matgl.layers._basis.SPHERICAL_BESSEL_ROOTS = torch.from_numpy(roots)
    structures = ase.io.read(sys.argv[1], index=":")
    SPECIES = [int(number) for atoms in structures for number in atoms.numbers]
    found = {
        "smooth": results(structures, True, True),
        "spherical": results(structures, False, False),
        "paper": results(structures, True, False),
    }
    Path(sys.argv[2]).write_text(json.dumps({"sizes": SIZES, **found}))
