"""The licence of each part of the image, and its text."""

import json
import sys

from devbox import parts, say

COLUMNS = ("name", "version", "licence", "of", "source", "texts")


def list_all(as_json):
    found = parts.everything()
    if as_json:
        print(json.dumps([{name: part[name] for name in COLUMNS} for part in found], indent=2))
        return 0
    for part in found:
        print(f"{part['name']:<42} {part['version']:<28} {part['of']:<10} {part['licence'] or '-'}")
    return 0


def show(name):
    """Prints the texts of all parts of that name; each file once."""
    found = [part for part in parts.everything() if part["name"] == name]
    if not found:
        say(f"{name}: no such part of the image; `devbox licences` lists them")
        return 1
    shown = set()
    for part in found:
        print(f"{part['name']} {part['version']} ({part['source']}): {part['licence'] or 'no licence named'}")
        for path in part["texts"]:
            if path not in shown:
                shown.add(path)
                print(f"\n{path}:\n")
                with open(path, encoding="utf-8", errors="replace") as file:
                    sys.stdout.write(file.read())
                print()
        if not part["texts"]:
            say(f"{name} {part['version']}: the image has no text of its licence")
    return 0 if all(part["texts"] for part in found) else 1
