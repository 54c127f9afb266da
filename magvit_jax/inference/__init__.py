"""Trained models in use: codec, sampler, editing, videos of any length."""
