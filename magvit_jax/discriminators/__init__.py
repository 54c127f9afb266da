"""Discriminators: videos to logits. Each file defines `Discriminator`.

A discriminator is a linen Module: __call__(video [b t h w 3]) -> logits of any
shape [b …], float32.
"""
