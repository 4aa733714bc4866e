"""Potentials: networks, classical potentials and combinations of them, all of one type.

One file is one kind. It holds a pydantic ``Config`` (fields, defaults, ``kind`` equal to the file name) whose
method ``build(statistics)`` returns an ``nn.Module`` that is a :class:`phystrain.derive.Potential`.
"""

from abc import abstractmethod
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny
from torch import nn

from phystrain import registry
from phystrain.registry import PluginConfig
from phystrain.statistics import Statistics


class PotentialConfig(PluginConfig):
    """Base of every potential's ``Config``."""

    @property
    def trains_reference(self) -> bool:
        """Whether reference energies are trained along, because the potential has no constant of its own.

        True for classical potentials; networks have a constant and leave the references alone.
        """
        return True

    @property
    def denoises(self) -> bool:
        """Whether the potential has a noise head (see :class:`phystrain.derive.Denoiser`)."""
        return False

    @abstractmethod
    def build(self, statistics: Statistics) -> nn.Module:
        """Make the potential, its parameters drawn from torch's global generator.

        Args:
            statistics: of the data the potential is made for; elements outside ``species`` are unknown to it.
        """


InnerConfig = Annotated[
    SerializeAsAny[PotentialConfig], BeforeValidator(lambda settings: registry.parse("potentials", settings))
]
"""Settings of a potential inside the settings of a combination."""


def build(settings: dict[str, Any] | PotentialConfig, statistics: Statistics) -> nn.Module:
    """Make a potential from settings such as ``{"kind": "painn", "channels": 64}``."""
    config: PotentialConfig = registry.parse("potentials", settings)
    return config.build(statistics)
