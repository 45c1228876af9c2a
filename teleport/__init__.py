"""Teleport: a running QEMU guest leaves one host and goes on, on another."""

__version__ = "0.1.0"
