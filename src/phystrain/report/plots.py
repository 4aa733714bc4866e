"""Every drawing of a comparison, in the order of the page."""

from collections.abc import Sequence

import matplotlib as mpl

from phystrain.report.comparison import Variant
from phystrain.report.curves import curve_drawings
from phystrain.report.drawing import STYLE, Drawing
from phystrain.report.failing import failing_drawings
from phystrain.report.learning import learning_drawings
from phystrain.report.parity import parity_drawings


def draw_all(variants: Sequence[Variant]) -> list[Drawing]:
    """All that there is material for."""
    with mpl.rc_context(STYLE):
        return [
            *curve_drawings(variants),
            *parity_drawings(variants),
            *learning_drawings(variants),
            *failing_drawings(variants),
        ]
