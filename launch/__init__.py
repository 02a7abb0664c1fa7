"""Puts a run on a machine or a cluster. Imports `xr2ct`; of `xr2ct` only the front door imports it."""
