"""Energies and forces of fairchem's eSCN and Equiformer v2 with random weights.

Run by the interpreter of an environment with fairchem-core 1.10.0 (without its dependencies), torch, e3nn,
torch-geometric and ase.

Usage: ``python parity_fairchem.py STRUCTURES.xyz RESULT.json``, or ``python parity_fairchem.py count`` for the number
of parameters of the published Equiformer v2 of 31 million
"""

import json
import sys
import types
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase.neighborlist import neighbor_list

_load = torch.load
torch.load = lambda *args, **options: _load(*args, **{**options, "weights_only": False})  # tables that come with it
_site = Path(torch.__file__).parents[1]
for _name in ("", ".core", ".core.common", ".core.models", ".core.models.equiformer_v2", ".core.models.escn"):
    _package = types.ModuleType("fairchem" + _name)  # their own __init__ import much that is not installed
    _package.__path__ = [str(_site.joinpath("fairchem", *_name.split(".")[1:]))]
    sys.modules[_package.__name__] = _package
sys.modules["torch_scatter"] = types.ModuleType("torch_scatter")
sys.modules["torch_scatter"].scatter = sys.modules["torch_scatter"].segment_coo = None
sys.modules["torch_scatter"].segment_csr = None

import fairchem.core.models.equiformer_v2.equiformer_v2 as equiformer  # noqa: E402
from fairchem.core.models.equiformer_v2.equiformer_v2 import EquiformerV2Backbone  # noqa: E402
from fairchem.core.models.equiformer_v2.heads import EqV2ScalarHead, EqV2VectorHead  # noqa: E402
from fairchem.core.models.escn.escn import eSCN  # noqa: E402

CUTOFF = 4.5
ESCN = {"lmax_list": [3], "mmax_list": [2], "num_layers": 3, "sphere_channels": 6, "hidden_channels": 5}
ESCN |= {"edge_channels": 7, "num_sphere_samples": 32, "distance_resolution": 0.3}
EQUIFORMER = {"lmax_list": [3], "mmax_list": [2], "num_layers": 2, "sphere_channels": 6, "attn_hidden_channels": 5}
EQUIFORMER |= {"num_heads": 2, "attn_alpha_channels": 4, "attn_value_channels": 3, "ffn_hidden_channels": 7}
EQUIFORMER |= {"edge_channels": 4, "norm_type": "layer_norm_sh", "avg_num_nodes": 1.0, "avg_degree": 7.0}
EQUIFORMER |= {"alpha_drop": 0.0, "drop_path_rate": 0.0}
CASES = {
    "escn": ESCN,
    "equiformer_v2-grid": EQUIFORMER | {"use_grid_mlp": True, "grid_resolution": 10},
    "equiformer_v2-gate": EQUIFORMER | {"use_gate_act": True},
}
M31 = {"lmax_list": [4], "mmax_list": [2], "num_layers": 8, "sphere_channels": 128, "attn_hidden_channels": 64}
M31 |= {"num_heads": 8, "attn_alpha_channels": 64, "attn_value_channels": 16, "ffn_hidden_channels": 128}
M31 |= {"edge_channels": 128, "norm_type": "layer_norm_sh", "grid_resolution": 18, "use_grid_mlp": True}
M31 |= {"max_radius": 12.0, "max_num_elements": 90, "weight_init": "uniform"}


def frames(vectors: torch.Tensor) -> torch.Tensor:
    """Rotations that take vectors to the y axis, the shortest for those above the equator; theirs are random."""
    n = vectors / vectors.norm(dim=1, keepdim=True)
    turn = torch.diag(n.new_tensor([-1.0, -1.0, 1.0]))
    below = (n[:, 1] < 0)[:, None]
    x, y, z = torch.where(below, n @ turn, n).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -x, zero, x, zero, z, zero, -z, zero], dim=1).reshape(-1, 3, 3)
    shortest = torch.eye(3) + cross + cross @ cross / (1 + y)[:, None, None]
    return torch.where(below[:, :, None], shortest @ turn, shortest)


class Graph:
    """Structures as these networks want them."""

    def __init__(self, frames: list[ase.Atoms]) -> None:
        lists = [neighbor_list("ijS", atoms, CUTOFF) for atoms in frames]
        counts = torch.tensor([len(atoms) for atoms in frames])
        start = (counts.cumsum(0) - counts).tolist()

        def joined(parts: list, kind: torch.dtype) -> torch.Tensor:
            return torch.tensor(np.concatenate(parts), dtype=kind)

        numbers = torch.get_default_dtype()
        self.pos = joined([atoms.positions for atoms in frames], numbers)
        self.cell = joined([atoms.cell.array[None] for atoms in frames], numbers)
        self.atomic_numbers = joined([atoms.numbers for atoms in frames], torch.int64)
        self.natoms = counts
        self.batch = torch.repeat_interleave(torch.arange(len(frames)), counts)
        ends = [joined([one[end] + s for one, s in zip(lists, start, strict=True)], torch.int64) for end in (1, 0)]
        self.edge_index = torch.stack(ends)
        self.cell_offsets = joined([one[2] for one in lists], torch.int64)
        self.neighbors = torch.tensor([len(one[0]) for one in lists])


class Equiformer(torch.nn.Module):
    """Backbone and heads."""

    def __init__(self, **sizes: object) -> None:
        super().__init__()
        self.backbone = EquiformerV2Backbone(**sizes)
        self.energy = EqV2ScalarHead(self.backbone)
        self.force = EqV2VectorHead(self.backbone)

    def forward(self, data: Graph) -> dict[str, torch.Tensor]:
        features = self.backbone(data)
        return self.energy(data, features) | self.force(data, features)


def build(name: str) -> torch.nn.Module:
    """A network with random weights, in evaluation mode, its frames made as ours where they matter."""
    common = {"otf_graph": False, "max_num_elements": 20}
    if name == "escn":
        model = eSCN(cutoff=CUTOFF, **common, **CASES[name])
        model._init_edge_rot_mat = lambda data, edges, vectors: frames(vectors)
    else:
        equiformer.init_edge_rot_mat = frames if name.endswith("grid") else RANDOM_FRAMES
        model = Equiformer(max_radius=CUTOFF, **common, **CASES[name])
    for place, parameter in model.named_parameters():
        if parameter.requires_grad:  # biases begin at zero and norms at one, which would hide a mistake
            torch.nn.init.normal_(parameter, mean=float("norm" in place and "weight" in place), std=0.3)
    return model.eval()


RANDOM_FRAMES = equiformer.init_edge_rot_mat


def main(structures: str, result: str = "") -> None:
    """Write weights, energies and forces of all cases."""
    if structures == "count":
        print(sum(parameter.numel() for parameter in Equiformer(**M31).parameters() if parameter.requires_grad))
        return
    torch.set_default_dtype(torch.float64)
    found = {"cutoff": CUTOFF, "cases": {}}
    for name, sizes in CASES.items():
        torch.manual_seed(0)
        model = build(name)
        predictions = []
        for atoms in ase.io.read(structures, index=":"):
            data = Graph([atoms])
            torch.manual_seed(1)  # of random frames
            with torch.no_grad():
                predictions.append({key: value.tolist() for key, value in model(data).items()})
        weights = {key: value.tolist() for key, value in model.named_parameters() if value.requires_grad}
        found["cases"][name] = {"sizes": sizes, "weights": weights, "predictions": predictions}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
