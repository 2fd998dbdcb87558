"""Dictionaries of other tools: one file for each format, found by the files of a folder.

A format's module has `detect(path) -> bool` and `read(path, allow_pickle=...) -> Dictionary`, and where this package
writes it, `write(dictionary, folder)`.
"""
