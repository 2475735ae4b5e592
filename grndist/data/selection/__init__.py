"""Which cells and genes of a store a run sees: filters that end in a view, and CausalBench's own."""

from grndist.data.selection.select import SelectionConfig, select

__all__ = ["SelectionConfig", "select"]
