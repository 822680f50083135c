"""Tests of the server: a package, so that its conftest.py does not hide the one above."""
