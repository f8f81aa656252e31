"""The laboratory: benchmarks, leaks, plots, and the official code as the reference."""
