"""How images/split-layers divides a Debian system, and whether Dockerfile.base has a layer for each group."""

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import tempfile
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
LOADER = importlib.machinery.SourceFileLoader("split_layers", str(ROOT / "images/split-layers"))
split_layers = importlib.util.module_from_spec(importlib.util.spec_from_loader("split_layers", LOADER))
LOADER.exec_module(split_layers)


class Split(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.system = pathlib.Path(folder.name)
        for path in ["var/lib/dpkg/info", "usr/lib", "usr/bin", "var/empty"]:
            (self.system / path).mkdir(parents=True)
        (self.system / "lib").symlink_to("usr/lib")

    def package(self, name, *paths):
        for path in paths:
            self.file(path)
        lines = "".join(f"/{path}\n" for path in paths)
        (self.system / f"var/lib/dpkg/info/{name}.list").write_text("/.\n" + lines)

    def file(self, path):
        (self.system / path).parent.mkdir(parents=True, exist_ok=True)
        (self.system / path).touch()

    def groups(self):
        found = split_layers.split(str(self.system))
        folders = {str(path.relative_to(self.system)) for path in self.system.rglob("*") if path.is_dir() and not path.is_symlink()}
        self.assertEqual(folders | {"."}, {it for it in found["rest"] if (self.system / it).is_dir() and it != "lib"})
        files = {}
        for group, paths in found.items():
            for path in paths:
                if path not in folders | {"."}:
                    self.assertNotIn(path, files, "a file is in one layer only")
                    files[path] = group
                    for above in pathlib.PurePath(path).parents:
                        self.assertIn(str(above), paths, "a layer has the folders above its files")
        return files

    def test_a_file_is_in_the_group_of_its_package_and_all_else_in_the_rest(self):
        self.package("golang-1.24-src", "usr/share/go/fmt.go")
        self.package("awscli", "usr/lib/python3/dist-packages/awscli/cli.py")
        self.package("libc6:arm64", "lib/libc.so.6")
        self.package("tree", "usr/bin/tree")
        compiled = "usr/lib/python3/dist-packages/awscli/__pycache__/cli.cpython-313.pyc"
        for path in [compiled, "etc/shadow", "usr/lib/python3/dist-packages/other/__pycache__/x.cpython-313.pyc"]:
            self.file(path)
        os.symlink("gcc", self.system / "usr/bin/cc")
        files = self.groups()
        expected = {
            "usr/share/go/fmt.go": "go",
            "usr/lib/python3/dist-packages/awscli/cli.py": "aws",
            compiled: "aws",
            "usr/lib/libc.so.6": "system",
            "usr/bin/tree": "rest",
            "usr/bin/cc": "rest",
            "lib": "rest",
            "etc/shadow": "rest",
            "var/lib/dpkg/info/awscli.list": "rest",
            "usr/lib/python3/dist-packages/other/__pycache__/x.cpython-313.pyc": "rest",
        }
        self.assertEqual(expected, {path: files[path] for path in expected})

    def test_names_of_one_file_stay_together(self):
        self.package("git", "usr/bin/git")
        os.link(self.system / "usr/bin/git", self.system / "usr/bin/another")
        files = self.groups()
        self.assertEqual(files["usr/bin/git"], files["usr/bin/another"])

    def test_lists_are_what_tar_reads(self):
        self.file("etc/a name\nof two lines")
        with tempfile.TemporaryDirectory() as lists:
            split_layers.main(str(self.system), lists)
            self.assertEqual({*split_layers.GROUPS, "rest"}, set(os.listdir(lists)))
            paths = (pathlib.Path(lists) / "rest").read_bytes().split(b"\0")
        self.assertIn(b"etc/a name\nof two lines", paths)
        self.assertEqual(b"", paths[-1])


class Recipe(unittest.TestCase):
    def test_the_base_has_a_layer_for_each_group_and_a_budget_for_each_layer(self):
        recipe = (ROOT / "images/Dockerfile.base").read_text()
        last = recipe[recipe.rindex("\nFROM ") :]
        groups = re.findall(r"^COPY --link --from=layers /out/(\w+)/ /$", last, re.MULTILINE)
        self.assertEqual([*split_layers.GROUPS, "rest"], groups)
        layers = re.findall(r"^(?:COPY|RUN|WORKDIR|ADD) ", last, re.MULTILINE)
        config = tomllib.loads((ROOT / "images/devbox.toml").read_text())
        self.assertEqual(len(config["base_layers"]), len(layers))


if __name__ == "__main__":
    unittest.main()
