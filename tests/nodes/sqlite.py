"""SQLite in the file that is the second argument, by the first one.

write: commits rows, and says the number of each when it is committed, until that fails. check: says that the file is whole, and how many rows
it has, from the first to the last.
"""

import sqlite3
import sys

what, path = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA synchronous = FULL")
if what == "write":
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE ledger (number INTEGER PRIMARY KEY, text TEXT)")
    connection.execute("CREATE INDEX texts ON ledger (text)")
    number = 0
    try:
        while True:
            number += 1
            connection.execute("BEGIN")
            connection.execute("INSERT INTO ledger VALUES (?, hex(randomblob(300)))", (number,))
            connection.execute("UPDATE ledger SET text = hex(randomblob(300)) WHERE number = ?", (number // 2,))
            connection.execute("COMMIT")
            print(number, flush=True)
    except sqlite3.Error as error:
        print(f"ended: {error}", flush=True)
else:
    assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall(), "it is not whole"
    count, last = connection.execute("SELECT count(*), max(number) FROM ledger").fetchone()
    assert count == last, (count, last)
    print(f"whole {count}")
