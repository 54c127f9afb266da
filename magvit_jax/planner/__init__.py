"""Planner: compiles a stage's real program for a TPU pod, without a TPU.

`programs` makes the program and its abstract arguments from a config, `compile`
hands it to the TPU compiler of libtpu, `flops` counts what the mathematics
needs, `hlo` reads the compiled text, `cost` adds its estimates up, `plan` puts
all of it in one dict of plain values, `text` prints that, `search` ranks a few
choices of batch, remat and mesh. All times are the compiler's estimates.
"""
