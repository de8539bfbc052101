"""What the notebooks share: metrics that are recorded, source shown where it is
explained, tables, figures that move without a kernel.
"""
from .frames import canvas, frames, live
from .recorded import METRICS, record
from .sources import source
from .tables import table

__all__ = ["METRICS", "canvas", "frames", "live", "record", "source", "table"]
