"""xr2ct: a few chest X-rays to a CT-like volume, and the job kit to train it on a cluster."""

__version__ = "0.1.0"
