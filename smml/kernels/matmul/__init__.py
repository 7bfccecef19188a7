"""C = A·B, built rung by rung: each file changes one thing about the rung before it, and `product` chooses among them.

A is [M, K] and B [K, N] with any strides, so that a transposed weight is read where it lies. Read the files in the
order of LADDER.
"""

# Each rung is the file of that name, with a function `matmul(a, b)`; what it changes stands beside it.
# The last runs where its `available(device)` says so, and not in the interpreter.
LADDER = {
    "naive": "a program for each element of C",
    "tiled": "a program for each tile of C, on the matrix units",
    "l2_ordered": "tiles that run at the same time share rows and columns",
    "pipelined": "the next tiles are on their way while this one is multiplied; tile shapes tuned",
    "descriptors": "the copy engine fetches whole tiles (TMA)",
    "persistent": "one program a multiprocessor goes from tile to tile",
    "warp_specialised": "each warp has one job, written by hand in Gluon; Hopper only",
}
