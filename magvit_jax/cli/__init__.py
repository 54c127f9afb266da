"""Verbs: `python -m magvit_jax VERB` runs cli/VERB.py's main(argv) -> int."""
