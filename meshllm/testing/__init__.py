"""Test doubles that ship with the package."""
