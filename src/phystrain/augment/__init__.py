"""Structures far from equilibrium, made from the few labelled ones, and labelled by a teacher.

One file is one way to make structures: a pydantic ``Config`` that is called with :class:`Structures`.
"""

from abc import abstractmethod

from phystrain.augment._relabel import align, default_cache, load_teacher, relabel
from phystrain.data.structures import Structures
from phystrain.registry import PluginConfig

__all__ = ["Augmentation", "align", "default_cache", "load_teacher", "relabel"]


class Augmentation(PluginConfig):
    """Base of every augmentation."""

    @abstractmethod
    def __call__(self, structures: Structures, seed: int) -> Structures:
        """New, unlabelled structures.

        Args:
            structures: to start from.
            seed: of the random choices; the same seed gives the same structures.
        """
