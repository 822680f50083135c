"""The version of the code, stored on every row that leaves a process."""

VERSION = "0.1.0"
