"""Molecular dynamics of many structures at once, what stops it, and what it leaves."""

from phystrain.dynamics.simulate import replicate, simulate
from phystrain.dynamics.trajectory import Settings, Trajectory

__all__ = ["Settings", "Trajectory", "replicate", "simulate"]
