"""Public weights of nets that losses read. Each file defines

FILES           the public files by name, as `PublicFile`s
NOTES           facts of the net for the written file, such as its name
USE             how the written file is used, with {out} for its name
convert(state)  arrays by their public names -> arrays by ours
shapes()        tree of the shapes that `convert` must give
"""
