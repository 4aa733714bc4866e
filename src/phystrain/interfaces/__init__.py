"""Bridges to other programs. Each consumes :func:`phystrain.derive.evaluate`."""
