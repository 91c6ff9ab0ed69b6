//! What may verify and no more: the program, and a service's own query, as a uid that nothing belongs
//! to.

use std::path::Path;

use super::Host;
use super::aftermath::hash_of;

/// Such a verifier. Only root can make one.
pub struct Verifier {
    /// Where that uid can be, with a copy of the program that it can run.
    host: Host,
}

impl Verifier {
    pub fn new() -> Self {
        let host = Host::new();
        host.chmod("", 0o755);
        Verifier { host }
    }

    /// Whether `apikey verify` accepts the key, and whether SQLite's own shell finds it, which reads
    /// the database as any service would. They must agree.
    pub fn accepts(&self, database: &Path, key: &str, at: &str) -> bool {
        let query = format!("SELECT id, user, name FROM accepted_keys WHERE key_hash = '{}'", hash_of(key));
        let database = database.to_str().unwrap();
        let shell = self.host.program("/usr/bin/sqlite3", &["-batch", database, &query]).by_nobody().run();
        assert_eq!((shell.status, shell.stderr.as_str()), (0, ""), "{at}: sqlite3: {shell:?}");
        let verify = self.host.program(self.host.apikey_for_all(), &["verify", "--db", database]);
        let verify = verify.input(key).by_nobody().run();
        let verified = verify.status == 0;
        assert!(verified || verify.status == 5, "{at}: verify: {verify:?}");
        assert_eq!(verified, !shell.stdout.is_empty(), "{at}: verify: {verify:?}, sqlite3: {shell:?}");
        verified
    }
}
