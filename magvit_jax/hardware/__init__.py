"""Accelerators: chips, FLOPs, utilization, the compilation cache."""
