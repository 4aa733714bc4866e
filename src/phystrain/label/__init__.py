"""Reference labels by quantum chemistry, with PySCF: DFT with forces, and energies up to CCSD(T) at the basis limit.

``level`` is what can be asked for, ``compute`` asks PySCF for one molecule, ``extrapolation`` holds the formulas of the
basis-set limit, ``calculator`` is a calculator of ASE that remembers its results on disk, ``job`` does a whole file.
"""
