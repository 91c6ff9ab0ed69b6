#!/bin/sh
# Tells whose API key it is, by one query on apikey's database. Needs the sqlite3 shell, 3.37 or later, and read
# permission. Reads a key a line from standard input; prints the user, or `-` where the key is not accepted.
database=${APIKEY_DB:-/var/lib/apikey/keys.db}

ask() {
    sqlite3 -init /dev/null -batch -readonly -cmd '.timeout 5000' "$database" \
        "SELECT user FROM accepted_keys WHERE key_hash = '$1'"
}

# Prints the user whose key it is, or nothing. An error is no answer: its status is not 0.
user_of() {
    case $1 in
        ak_*[!0-9a-f]*) return 0 ;;
        ak_*) [ "${#1}" -eq 75 ] || return 0 ;;
        *) return 0 ;;
    esac
    # Printed by the shell itself: an argument of another program can be read by everybody.
    hash=$(printf %s "$1" | sha256sum) || return
    # Now and then a reader meets a writer halfway, who is through by then.
    ask "${hash%% *}" 2>/dev/null || { sleep 0.1 && ask "${hash%% *}"; }
}

while IFS= read -r key || [ -n "$key" ]; do
    user=$(user_of "$key") || exit
    echo "${user:--}"
done
