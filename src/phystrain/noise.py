"""Random numbers as a function of integers: the same on every device, in every batch, on any number of processes.

A counter-based generator (the finaliser of SplitMix64; Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195),
vectorised over tensors. There is no state to save, which is what makes a resumed run equal an uninterrupted one.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The 64-bit pattern of ``value`` as a signed integer, which is what torch has."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix(*parts: Tensor | int) -> Int[Tensor, "..."]:
    """Hash integers, broadcast against each other, to well-mixed int64 keys.

    Args:
        parts: int64 tensors or Python integers; at least one tensor.
    """
    device = next(part.device for part in parts if isinstance(part, Tensor))
    state = torch.zeros((), dtype=torch.int64, device=device)
    for part in parts:
        state = (state ^ (part if isinstance(part, Tensor) else _signed(part))) + _GOLDEN
        state = (state ^ _shift_right(state, 30)) * _FIRST
        state = (state ^ _shift_right(state, 27)) * _SECOND
        state = state ^ _shift_right(state, 31)
    return state


def uniform(*parts: Tensor | int) -> Float[Tensor, "..."]:
    """Uniform on [0, 1), float64, of the shape that ``parts`` broadcast to."""
    return _shift_right(mix(*parts), 11).to(torch.float64) * 2.0**-53


def normal(*parts: Tensor | int) -> Float[Tensor, "..."]:
    """Standard normal, float64 (Box-Muller)."""
    radius = torch.sqrt(-2 * torch.log1p(-uniform(*parts, 1)))
    return radius * torch.cos(2 * math.pi * uniform(*parts, 2))


def index_in_system(system: Int[Tensor, " atoms"], atoms_per_system: Int[Tensor, " systems"]) -> Int[Tensor, " atoms"]:
    """(atoms,) running number of each atom within its structure."""
    first = torch.cumsum(atoms_per_system, 0) - atoms_per_system
    return torch.arange(len(system), device=system.device) - first[system]
