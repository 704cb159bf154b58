"""vidswap: swap a face through a whole video."""

__version__ = "0.1.0"
