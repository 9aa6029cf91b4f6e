"""Compiled C code for the live path, built on the user's machine at first use."""

from __future__ import annotations
