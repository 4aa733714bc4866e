"""Experiments of the two papers, and more like them: runner, result files, tables and pictures.

One YAML file in ``experiments/`` is one experiment, one small JSON file in ``benchmarks/results/reproduce/`` is one
training with its tests, and tables and pictures are made from those files alone::

    python -m benchmarks.reproduce plan
    python -m benchmarks.reproduce run --data DIR --only silica-10 --minutes 60
    python -m benchmarks.reproduce table
"""
