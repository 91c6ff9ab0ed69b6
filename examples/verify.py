# Tells whose API key it is, by one query on apikey's database. Needs Python 3.7 with SQLite 3.37, and
# read permission. Reads a key a line from standard input; prints the user, or `-` where the key is not
# accepted.
import hashlib, os, re, sqlite3, sys, threading, time

DATABASE = os.environ.get("APIKEY_DB", "/var/lib/apikey/keys.db")
opened = threading.local()  # a connection for each thread

def connection():
    """The connection that stays open, until another file is at the path: a backup that was restored."""
    status = os.stat(DATABASE)
    file = status.st_dev, status.st_ino
    if getattr(opened, "file", None) != file:
        opened.db = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=5)
        opened.file = file
    return opened.db

def user_of(key):
    """The user whose key it is, or None. An error is no answer: it is raised."""
    if not re.fullmatch("ak_[0-9a-f]{72}", key):
        return None
    query = "SELECT user FROM accepted_keys WHERE key_hash = ?", [hashlib.sha256(key.encode()).hexdigest()]
    try:
        row = connection().execute(*query).fetchone()
    except sqlite3.Error:  # once in 200,000 times a reader meets a writer halfway, who is through by then
        time.sleep(0.1)
        row = connection().execute(*query).fetchone()
    return row[0] if row else None

if __name__ == "__main__":
    for line in sys.stdin.buffer:
        print(user_of(line.rstrip(b"\n").decode(errors="replace")) or "-")
