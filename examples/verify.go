// Tells whose API key it is, by one query on apikey's database. Needs github.com/mattn/go-sqlite3, which needs
// cgo, and read permission. Reads a key a line from standard input; prints the user, or `-` where the key is
// not accepted.
package main

import (
	"bufio"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"regexp"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

var keyForm = regexp.MustCompile(`^ak_[0-9a-f]{72}$`)

// open is called once. The query is for all goroutines: each that asks gets a connection, and prepares it there.
func open(database string) (*sql.Stmt, error) {
	db, err := sql.Open("sqlite3", "file:"+database+"?mode=ro&_busy_timeout=5000")
	if err != nil {
		return nil, err
	}
	db.SetConnMaxLifetime(time.Second) // the next one opens the file that is there then: a restored backup
	const query = "SELECT user FROM accepted_keys WHERE key_hash = ?"
	prepared, err := db.Prepare(query)
	if err != nil { // now and then a reader meets a writer halfway, who is through by then
		time.Sleep(100 * time.Millisecond)
		prepared, err = db.Prepare(query)
	}
	return prepared, err
}

// userOf tells whose key it is, "" where it is not accepted. An error is no answer.
func userOf(query *sql.Stmt, key string) (user string, err error) {
	if !keyForm.MatchString(key) {
		return "", nil
	}
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(key)))
	ask := func() error { return query.QueryRow(hash).Scan(&user) }
	err = ask()
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		time.Sleep(100 * time.Millisecond) // as above
		err = ask()
	}
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return user, err
}

func main() {
	database := os.Getenv("APIKEY_DB")
	if database == "" {
		database = "/var/lib/apikey/keys.db"
	}
	query, err := open(database)
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		user, err := userOf(query, lines.Text())
		if err != nil {
			log.Fatal(err)
		}
		if user == "" {
			user = "-"
		}
		fmt.Println(user)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}
