"""Decoding: how a generator's logits become ids, one frozen dataclass a way."""
