"""How bytes move: which data path, QEMU's stream format, progress and convergence. Pure."""
