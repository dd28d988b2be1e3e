# Functions of attributes.pyx are called from other extensions only; attributes.pxd declares them.
