"""Fits of classical potentials to few labels, in seconds: linear parts exactly, the rest by a bounded search.

:func:`fit` gives the potential with its quality on structures it has not seen, by cross-validation, and can choose
among families of potentials by the same figure.
"""

from phystrain.fitting._families import FAMILIES
from phystrain.fitting._fit import FitSettings, Fitted, fit

__all__ = ["FAMILIES", "FitSettings", "Fitted", "fit"]
