"""Frozen feature networks. Each file defines a linen Module `Net`.

A net takes frames [n h w 3] in [-1,1], scales them as its weights want, and
returns features; `dtype` is that of its convolutions. Weights come from a file
that `convert` wrote (pretrained.py), never from training here.
"""
