"""What a network with vector features needs for denoising: forces as input, noise as output."""

from jaxtyping import Float
from torch import Tensor, nn

from phystrain.layers.gated import VectorReadout

Scalars = Float[Tensor, "atoms channels"]
Vectors = Float[Tensor, "atoms 3 channels"]


class NoiseHead(nn.Module):
    """Encoding of forces and output of noise, both turning with the structure.

    The force encoding is the part of degree one of Liao, Smidt, Shuaibi, Das 2024 (arXiv:2403.09549); the
    network makes scalars of it by itself. The output has the form of a direct force head.

    Args:
        channels: features of an atom.
        epsilon: added to squared vector norms.
    """

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.encoding = nn.Linear(1, channels, bias=False)
        self.blocks = VectorReadout(channels, epsilon)

    def encode(self, forces: Float[Tensor, "atoms 3"]) -> Vectors:
        """Vector features: the force of each atom times a weight for each channel.

        Args:
            forces: in units in which they are of order one.
        """
        encoded: Tensor = self.encoding(forces[:, :, None])
        return encoded

    def forward(self, scalars: Scalars, vectors: Vectors) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) noise in units of its standard deviation, from the last features."""
        noise: Tensor = self.blocks(scalars, vectors)
        return noise
