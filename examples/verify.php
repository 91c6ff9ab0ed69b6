<?php
// Tells whose API key it is, by one query on apikey's database. Needs PHP 8.1 with pdo_sqlite, and read
// permission. Reads a key a line from standard input; prints the user, or `-` where the key is not accepted.

const DATABASE = '/var/lib/apikey/keys.db';

// The query on a connection that stays open. Under php-fpm that is for one request: the next one opens the
// file that is there then, be it a backup that was restored. What runs for longer is restarted after that.
function accepted_keys(): PDOStatement
{
    static $query;
    if (!$query) {
        $database = getenv('APIKEY_DB') ?: DATABASE;
        $db = new PDO("sqlite:file:$database?mode=ro", options: [PDO::ATTR_TIMEOUT => 5]);
        $query = $db->prepare('SELECT user FROM accepted_keys WHERE key_hash = ?');
    }
    return $query;
}

// The user whose key it is, or null. An error is no answer: it is thrown.
function user_of(string $key): ?string
{
    if (!preg_match('/^ak_[0-9a-f]{72}$/D', $key)) {
        return null;
    }
    $hash = hash('sha256', $key);
    try {
        accepted_keys()->execute([$hash]);
    } catch (PDOException) { // now and then a reader meets a writer halfway, who is through by then
        usleep(100_000);
        accepted_keys()->closeCursor(); // without it, PDO does not begin anew
        accepted_keys()->execute([$hash]);
    }
    return accepted_keys()->fetchAll(PDO::FETCH_COLUMN)[0] ?? null; // all, so that no transaction stays open
}

// To try it out.
while (($line = fgets(STDIN)) !== false) {
    echo user_of(rtrim($line, "\n")) ?? '-', "\n";
}
