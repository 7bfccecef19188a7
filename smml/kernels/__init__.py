"""KERNELS: one operation a file: its Triton kernel, the plain PyTorch it must equal, its FLOPs and bytes.

The same file runs two ways (see `smml.triton_mode`): compiled on a GPU, interpreted on a CPU. A kernel computes in
float32 whatever it reads, with `interpreter.dot` and `interpreter.cast` where the interpreter needs help.
"""
