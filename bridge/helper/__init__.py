"""The helper in a cloud's container, seen from here: what it is given, and what it leaves. Pure.

The helper itself is a program in Go, in `helper/`; docs/helper.md tells what it does.
"""
