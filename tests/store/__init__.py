"""Tests of the store: a package, so that its conftest.py does not hide the one above."""
