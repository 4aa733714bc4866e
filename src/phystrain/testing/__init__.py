"""Contract suites that anyone's plug-ins can be held against: one module for each group of plug-ins.

The checks are plain functions that raise ``AssertionError``, so they need no particular test runner.
"""
