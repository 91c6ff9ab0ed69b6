//! What is done to a user, and what comes of it.

use crate::driver::User;
use crate::random::Random;

/// A user with more keys than this is revoked.
const MANY: usize = 5;

pub struct Order {
    pub args: Vec<String>,
    pub effect: Effect,
}

/// What a command does to the keys that are accepted, where it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    Nothing,
    Revokes,
    /// There is a new one; the current one stays for days, or does not; all others end first, or do not.
    Replaces {
        keeps: bool,
        first: bool,
    },
}

impl Effect {
    pub fn revokes(self) -> bool {
        matches!(self, Effect::Revokes | Effect::Replaces { first: true, .. })
    }
}

const NEW: Effect = Effect::Replaces { keeps: false, first: false };

impl Order {
    fn new(effect: Effect, user: &User, args: &[&str]) -> Self {
        let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        args.insert(1, user.name.clone());
        Order { args, effect }
    }

    /// The same, to the file of a daemon, which is told of it.
    fn with_file(mut self, user: &User, reload: &str) -> Self {
        if let Some(file) = &user.key_file {
            self.args.extend([
                "--key-file".into(),
                file.display().to_string(),
                "--reload".into(),
                reload.into(),
            ]);
        }
        self
    }

    pub fn ensure(user: &User) -> Self {
        let effect = if user.active.is_some() { Effect::Nothing } else { NEW };
        Order::new(effect, user, &["ensure"]).with_file(user, "true")
    }

    pub fn refresh(user: &User) -> Self {
        Order::new(NEW, user, &["refresh", "--yes"]).with_file(user, "true")
    }
}

/// Something that makes sense for a user who has these keys.
pub fn choose(user: &User, is_clock_right: bool, random: &mut Random) -> Order {
    let order = |effect, args: &[&str]| Order::new(effect, user, args);
    let reload = if random.percent(20) { "sleep 0.05" } else { "true" };
    let is_daemon = user.key_file.is_some();
    let has_key = user.active.is_some();
    if has_key && user.accepted().len() > MANY {
        return order(Effect::Revokes, &["revoke", "--yes"]);
    }
    match random.below(100) {
        0..40 if !has_key && is_daemon => Order::ensure(user),
        0..70 if !has_key => order(NEW, &["create"]).with_file(user, reload),
        0..4 => order(Effect::Nothing, &["create"]).with_file(user, reload),
        4..30 => order(NEW, &["refresh", "--yes"]).with_file(user, reload),
        30..42 => {
            order(Effect::Replaces { keeps: has_key, first: false }, &["refresh", "--yes", "--grace", "2d"])
                .with_file(user, reload)
        }
        // Past a grace that a clock shortens or draws out nobody knows what is accepted.
        42..47 if is_clock_right => {
            order(NEW, &["refresh", "--yes", "--grace", "1s"]).with_file(user, reload)
        }
        42..52 => {
            order(Effect::Replaces { keeps: false, first: true }, &["refresh", "--yes", "--revoke-first"])
                .with_file(user, reload)
        }
        52..70 => order(Effect::Revokes, &["revoke", "--yes"]),
        70..75 if is_daemon => order(Effect::Nothing, &["edit", "--key-file-mode", "0640"]),
        75..80 if is_daemon && has_key => Order::ensure(user),
        70..82 => order(Effect::Nothing, &["edit", "--name", ["laptop", "phone"][random.below(2)]]),
        82..88 => order(Effect::Nothing, &["edit", "--expires-in", ["30d", "never"][random.below(2)]]),
        88..94 => order(Effect::Nothing, &["list", "--all"]),
        _ => order(Effect::Nothing, &["log", "--since", "1h"]),
    }
}
