"""Runs on MicroPython: what of the names in a file is missing; prints each as JSON.

Usage: micropython names.py FILE, with {module: [name, or class.name, ...]} as JSON.
"""

import json
import sys

with open(sys.argv[1]) as file:
    modules = json.load(file)
for module, names in modules.items():
    __import__(module)
    for name in names:
        found = sys.modules[module]
        try:
            for part in name.split("."):
                found = getattr(found, part)
        except (AttributeError, ImportError):
            print(json.dumps("%s.%s" % (module, name)))
