"""Conversion of public weights: the name in --from is a file in one of

tokenizers/   whole tokenizers, to a folder of ours and back
nets/         weights of the nets that losses read, to a file of ours
"""
