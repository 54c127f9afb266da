"""Configs of tokenizers."""
