# Tells whose API key it is, by one query on apikey's database. Needs the gem sqlite3, and read permission.
# Reads a key a line from standard input; prints the user, or `-` where the key is not accepted.
require "digest"
require "sqlite3"

DATABASE = ENV.fetch("APIKEY_DB", "/var/lib/apikey/keys.db")

# The query on this thread's connection. It stays open, until another file is at the path: a backup that was
# restored. It must not be taken through a fork: ask first in the worker.
def accepted_keys
  status = File.stat(DATABASE)
  file = [status.dev, status.ino]
  opened, query = Thread.current.thread_variable_get(:accepted_keys)
  return query if opened == file

  db = SQLite3::Database.new(DATABASE, readonly: true)
  db.busy_timeout = 5000
  query = db.prepare("SELECT user FROM accepted_keys WHERE key_hash = ?")
  Thread.current.thread_variable_set(:accepted_keys, [file, query])
  query
end

# The user whose key it is, or nil. An error is no answer: it is raised.
def user_of(key)
  return unless key.b.match?(/\Aak_[0-9a-f]{72}\z/)

  tries ||= 0
  accepted_keys.execute!(Digest::SHA256.hexdigest(key)).dig(0, 0)
rescue SQLite3::Exception # once in 200,000 times a reader meets a writer halfway, who is through by then
  raise if (tries += 1) > 1

  sleep 0.1
  retry
end

$stdin.each_line(chomp: true) { |line| puts user_of(line) || "-" } if $PROGRAM_NAME == __FILE__
