"""Configs of generators."""
