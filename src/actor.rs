//! Who is changing keys, as the log has it.

use std::fs;

use nix::unistd::{User as Account, getuid};

use crate::text::printable;
use crate::user::User;

/// Who is changing keys. Found out before the database is locked, since a directory service that is
/// asked for an account's name can be slow.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The real uid of the process.
    pub uid: u32,
    /// The name of that uid's account.
    pub login: Option<String>,
    /// Who called sudo(8), as the environment says: a hint, not a proof.
    pub sudo_user: Option<String>,
    /// Who logged in, as the kernel says: the uid in `/proc/self/loginuid`, which outlives su and sudo.
    pub audit_uid: Option<u32>,
}

impl Actor {
    /// The caller of this process.
    pub fn current() -> Self {
        let uid = getuid();
        let account = Account::from_uid(uid).ok().flatten();
        Actor {
            uid: uid.as_raw(),
            login: account.map(|account| printable(&account.name).into_owned()),
            sudo_user: std::env::var_os("SUDO_USER").and_then(|user| valid(user.to_str()?)),
            audit_uid: fs::read_to_string("/proc/self/loginuid").ok().and_then(|uid| audit_uid(&uid)),
        }
    }
}

fn valid(name: &str) -> Option<String> {
    name.parse::<User>().ok().map(|user| user.to_string())
}

/// The highest number says that nobody logged in.
fn audit_uid(text: &str) -> Option<u32> {
    text.trim_end().parse().ok().filter(|uid| *uid != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_logged_in_where_the_kernel_has_the_highest_number() {
        assert_eq!(audit_uid("1000"), Some(1000));
        assert_eq!(audit_uid("0\n"), Some(0));
        assert_eq!(audit_uid("4294967295"), None);
        assert_eq!(audit_uid(""), None);
    }

    #[test]
    fn a_name_that_is_none_is_left_out() {
        assert_eq!(valid("alice").as_deref(), Some("alice"));
        assert_eq!(valid("al\u{1b}ice"), None);
    }
}
