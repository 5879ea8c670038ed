"""A database such as opencode's, written by a version to come."""

import os
import sqlite3

database = sqlite3.connect(os.path.expanduser("~/.local/share/opencode/opencode.db"))
database.execute("create table session (version text)")
database.execute("insert into session values ('99.0.0')")
database.commit()
