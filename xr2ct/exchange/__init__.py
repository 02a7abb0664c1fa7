"""Out of a store and in again: cubes and X-rays as NIfTI, MHA and the HDF5 layout of X2CT's family."""
