"""Interatomic potentials trained with physics, for those who have few quantum-mechanical labels."""

__version__ = "0.1.0"
