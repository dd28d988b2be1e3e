# Functions of deltas.pyx are called from other extensions only; deltas.pxd declares them.
