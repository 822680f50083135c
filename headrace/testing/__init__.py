"""Checks that every plug-in of a kind must pass; plug-ins of other packages call them from their own tests."""
