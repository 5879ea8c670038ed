"""The table of wrong inputs, as far as it needs no container; the smoke suite gives all of it to a real start."""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[3]
LIBRARY = ROOT / "rootfs/usr/local/lib/devbox"
sys.path.insert(0, str(LIBRARY))
os.environ["DEVBOX_TEST_TABLE"] = str(ROOT / "rootfs/usr/share/devbox/environment.toml")

from devbox import Refusal, table  # noqa: E402

PROGRAMS = {
    "devbox": [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(LIBRARY)!r}); from devbox.cli import run; sys.exit(run())"],
    "launcher": ["sh", str(ROOT / "rootfs/usr/share/devbox/opencode-devbox")],
}


def rows(*names):
    for name in names:
        for line in (ROOT / "scripts/smoke" / name).read_text().splitlines():
            if line and not line.startswith("#"):
                code, how, given, expected = line.split("\t")
                yield int(code), how, given, expected


class BadInput(unittest.TestCase):
    def test_there_are_enough(self):
        found = [(how, given) for _, how, given, _ in rows("bad-input.tsv", "bad-server.tsv")]
        self.assertEqual(len(found), len(set(found)), "no input is there twice")
        self.assertGreaterEqual(len(found), 120)

    def test_programs_refuse_in_one_line(self):
        with tempfile.TemporaryDirectory() as home:
            project = f"{home}/project"
            os.mkdir(project)
            environ = {**os.environ, "HOME": home}

            def give(row):
                words = shlex.split(row[2])
                done = subprocess.run(PROGRAMS[row[1]] + words, cwd=project, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
                return row, done.returncode, done.stdout + done.stderr

            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(give, (row for row in rows("bad-input.tsv") if row[1] in PROGRAMS)))
        for (code, how, given, line), found, text in answers:
            self.assertEqual((code, 1), (found, text.count("\n")), (how, given, text))
            self.assertTrue(text.startswith(line), (how, given, text))

    def test_the_table_of_variables_reports_wrong_values_in_one_line(self):
        kinds = {variable["name"]: variable["kind"] for variable in table.load()["variable"]}
        seen = 0
        for code, how, given, line in rows("bad-input.tsv"):
            name, _, value = given.partition("=")
            unknown = name.startswith("DEVBOX_") and name not in kinds
            if how != "setting" or not (unknown or kinds.get(name) in ("switch", "id") or name in table.FORMS or name == "UMASK"):
                continue
            seen += 1
            said = []
            settings = table.Settings({name: value.replace("\\r", "\r")}, tell=said.append)
            with mock.patch("devbox.place.root_is_a_user", return_value=False):
                try:
                    settings.check()
                    if kinds.get(name) == "id":
                        settings.id(name)
                except Refusal as refusal:
                    said.append(str(refusal))
            self.assertEqual(1, len(said), (given, said))
            self.assertTrue(f"devbox: {said[0]}".startswith(line), (given, said))
        self.assertGreater(seen, 30)


if __name__ == "__main__":
    unittest.main()
