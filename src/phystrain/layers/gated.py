"""Equivariant blocks on scalar and vector features of atoms."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def smooth_norm(vectors: Float[Tensor, "atoms 3 channels"], epsilon: float) -> Float[Tensor, "atoms channels"]:
    """(atoms, channels) ``sqrt(|v|^2 + epsilon)``: smooth where the vector vanishes, with finite derivatives."""
    return torch.sqrt((vectors * vectors).sum(dim=1) + epsilon)


class GatedEquivariant(nn.Module):
    """Scalars and vectors to fewer of each, the vectors gated by the scalars.

    Weiler et al. 2018 (arXiv:1807.02547) in the form of Schütt, Unke, Gastegger 2021 (arXiv:2102.03150), figure 3.

    Args:
        inputs: channels that come in, of scalars and of vectors.
        outputs: channels that go out.
        epsilon: added to squared vector norms.
    """

    def __init__(self, inputs: int, outputs: int, epsilon: float) -> None:
        super().__init__()
        self.outputs = outputs
        self.epsilon = epsilon
        self.normed = nn.Linear(inputs, inputs, bias=False)
        self.gated = nn.Linear(inputs, outputs, bias=False)
        self.gates = nn.Sequential(nn.Linear(2 * inputs, inputs), nn.SiLU(), nn.Linear(inputs, 2 * outputs))

    def forward(
        self, scalars: Float[Tensor, "atoms inputs"], vectors: Float[Tensor, "atoms 3 inputs"]
    ) -> tuple[Float[Tensor, "atoms outputs"], Float[Tensor, "atoms 3 outputs"]]:
        norm = smooth_norm(self.normed(vectors), self.epsilon)
        scalars, gates = self.gates(torch.cat([scalars, norm], dim=1)).split(self.outputs, dim=1)
        return nn.functional.silu(scalars), gates[:, None] * self.gated(vectors)


class VectorReadout(nn.ModuleList):
    """One vector for each atom, from two gated blocks; as forces are read from equivariant features.

    Args:
        channels: that come in, of scalars and of vectors.
        epsilon: added to squared vector norms.
    """

    def __init__(self, channels: int, epsilon: float) -> None:
        half = channels // 2
        super().__init__([GatedEquivariant(channels, half, epsilon), GatedEquivariant(half, 1, epsilon)])

    def forward(
        self, scalars: Float[Tensor, "atoms inputs"], vectors: Float[Tensor, "atoms 3 inputs"]
    ) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) in the unit of the features."""
        for block in self:
            scalars, vectors = block(scalars, vectors)
        return vectors.squeeze(2)
