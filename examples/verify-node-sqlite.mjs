// Tells whose API key it is, by one query on apikey's database. Needs Node 22.13 or later (node:sqlite),
// and read permission. Reads a key a line from standard input; prints the user, or `-` where the key is
// not accepted.
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";

const DATABASE = process.env.APIKEY_DB ?? "/var/lib/apikey/keys.db";
let db, file, query;

// The query on the connection that stays open, until another file is at the path: a backup that was restored.
function prepared() {
  const { dev, ino } = statSync(DATABASE);
  if (file !== `${dev} ${ino}`) {
    db = new DatabaseSync(DATABASE, { readOnly: true });
    db.exec("PRAGMA busy_timeout = 5000"); // without it, it waits for nobody
    query = db.prepare("SELECT user FROM accepted_keys WHERE key_hash = ?");
    file = `${dev} ${ino}`;
  }
  return query;
}

// The user whose key it is, or undefined. An error is no answer: it is thrown.
export function userOf(key) {
  if (!/^ak_[0-9a-f]{72}$/.test(key)) return undefined;
  const hash = createHash("sha256").update(key).digest("hex");
  try {
    return prepared().get(hash)?.user;
  } catch { // once in 200,000 times a reader meets a writer halfway: not a second time
    return prepared().get(hash)?.user;
  }
}

// To try it out.
for await (const line of createInterface({ input: process.stdin })) console.log(userOf(line) ?? "-");
