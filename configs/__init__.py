"""Configs: each file has get_config(arg) and says how to run it."""
