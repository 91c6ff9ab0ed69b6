//! What a sequence is made of, and how it is drawn.

use std::fmt;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970, or between two moments.
pub type Ms = i64;
pub const MINUTE: Ms = 60_000;

pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
pub const FILES: [&str; 3] = ["a.key", "b.key", "c.key"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change<T> {
    #[default]
    Keep,
    Set(T),
    TakeAway,
}

/// The settings' options; durations in minutes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub name: Change<u8>,
    pub lifetime: Change<Ms>,
    pub file: Change<usize>,
    pub mode: Option<u32>,
    pub env: Change<()>,
    /// Whether the command will succeed.
    pub reload: Change<bool>,
    pub renew_after: Change<Ms>,
    pub renew_grace: Option<Ms>,
}

/// One of the keys that were ever seen: this number, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick(pub usize);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Create(usize, Options),
    Refresh { user: usize, grace: Option<Ms>, revoke_first: bool, options: Options },
    Ensure(usize, Options),
    Edit(usize, Options),
    Renew(Option<usize>),
    Revoke(usize),
    RevokeKey(Pick),
    Prune(Ms),
    Verify(Pick),
}

/// What somebody else does to a key file or to what is staged beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Remove(usize),
    Empty(usize),
    Junk(usize),
    Holds(usize, Pick),
    Open(usize),
    NoStage,
    HalfAStage,
}

/// What becomes of a command while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Undisturbed,
    /// It is killed at this of its system calls. Alone, it makes the index of the log anew before all else.
    Killed(u32, bool),
    /// It is held there until another process has done that.
    Held(u32, Box<Command>),
}

#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    Run(Command, Fate),
    /// The clock is moved by so many minutes.
    Clock(Ms),
    Outside(Outside),
}

fn change<T: Clone + fmt::Debug + 'static>(
    often: u32,
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Change<T>> {
    prop_oneof![20 => Just(Change::Keep), often => value.prop_map(Change::Set), 1 => Just(Change::TakeAway)]
}

fn any_options() -> impl Strategy<Value = Options> {
    let minutes = |minutes: &'static [Ms]| prop::sample::select(minutes);
    (
        change(4, 0..2_u8),
        change(9, minutes(&[60, 120, 2 * 1440])),
        change(18, 0..FILES.len()),
        prop::option::weighted(0.1, prop::sample::select(&[0o600, 0o640][..])),
        change(3, Just(())),
        change(8, prop::bool::weighted(0.6)),
        change(30, minutes(&[30, 30, 1440])),
        prop::option::weighted(0.15, minutes(&[0, 30, 120])),
    )
        .prop_map(|(name, lifetime, file, mode, env, reload, renew_after, renew_grace)| Options {
            name,
            lifetime,
            file,
            mode,
            env,
            reload,
            renew_after,
            renew_grace,
        })
}

/// What `edit` takes.
fn editable() -> impl Strategy<Value = Options> {
    let lifetime = change(20, prop::sample::select(&[60_i64, 120, 2 * 1440][..]));
    (any_options(), lifetime).prop_map(|(options, lifetime)| Options {
        lifetime,
        file: Change::Keep,
        env: Change::Keep,
        ..options
    })
}

/// Half of them say nothing that needs a key file.
fn options() -> impl Strategy<Value = Options> {
    (any_options(), any::<bool>()).prop_map(|(options, is_plain)| match is_plain {
        true => {
            let Options { name, lifetime, file, .. } = options;
            Options { name, lifetime, file, ..Options::default() }
        }
        false => options,
    })
}

/// Mostly of who has a key file.
fn first_options() -> impl Strategy<Value = Options> {
    let to_file = (any_options(), 0..FILES.len())
        .prop_map(|(options, file)| Options { file: Change::Set(file), ..options });
    prop_oneof![3 => to_file, 1 => options()]
}

fn pick() -> impl Strategy<Value = Pick> {
    (0..60_usize).prop_map(Pick)
}

fn command() -> impl Strategy<Value = Command> {
    let user = || prop_oneof![6 => Just(0), 3 => Just(1), 1 => Just(2)];
    let grace = prop::option::weighted(0.4, prop::sample::select(&[0_i64, 30, 720][..]));
    prop_oneof![
        4 => (user(), first_options()).prop_map(|(user, options)| Command::Create(user, options)),
        6 => (user(), grace, prop::bool::weighted(0.12), options()).prop_map(
            |(user, grace, revoke_first, options)| Command::Refresh {
                user,
                grace: grace.filter(|_| !revoke_first),
                revoke_first,
                options
            }
        ),
        2 => (user(), first_options()).prop_map(|(user, options)| Command::Ensure(user, options)),
        2 => (user(), options()).prop_map(|(user, options)| Command::Ensure(user, options)),
        3 => (user(), editable()).prop_map(|(user, options)| Command::Edit(user, options)),
        3 => prop::option::weighted(0.3, user()).prop_map(Command::Renew),
        1 => user().prop_map(Command::Revoke),
        1 => pick().prop_map(Command::RevokeKey),
        1 => prop::sample::select(&[0_i64, 60, 60, 1440][..]).prop_map(Command::Prune),
        1 => pick().prop_map(Command::Verify),
    ]
}

fn outside() -> impl Strategy<Value = Outside> {
    let file = || 0..FILES.len();
    prop_oneof![
        2 => file().prop_map(Outside::Remove),
        1 => file().prop_map(Outside::Empty),
        1 => file().prop_map(Outside::Junk),
        2 => (file(), pick()).prop_map(|(file, key)| Outside::Holds(file, key)),
        1 => file().prop_map(Outside::Open),
        1 => Just(Outside::NoStage),
        1 => Just(Outside::HalfAStage),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Who has most to do is disturbed by those that wait for nobody.
    let other =
        prop_oneof![2 => command(), 1 => Just(Command::Revoke(0)), 1 => pick().prop_map(Command::RevokeKey)];
    let fate = prop_oneof![
        7 => Just(Fate::Undisturbed),
        4 => (4..20_u32, Just(false)).prop_map(|(at, alone)| Fate::Killed(at, alone)),
        1 => (1..40_u32, Just(true)).prop_map(|(at, alone)| Fate::Killed(at, alone)),
        2 => (3..18_u32, other).prop_map(|(at, other)| Fate::Held(at, Box::new(other))),
    ];
    let minutes = &[1_i64, 30, 60, 60, 120, 1440, 4 * 1440, -1, -30, -60, -60, -120, -1440][..];
    prop_oneof![
        14 => (command(), fate).prop_map(|(command, fate)| Step::Run(command, fate)),
        5 => prop::sample::select(minutes).prop_map(Step::Clock),
        2 => outside().prop_map(Step::Outside),
    ]
}

pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..=30)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn option<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, name: &str, change: &Change<T>) -> fmt::Result {
            match change {
                Change::Keep => Ok(()),
                Change::Set(value) => write!(f, " --{name} {value:?}"),
                Change::TakeAway => write!(f, " --no-{name}"),
            }
        }
        option(f, "name", &self.name)?;
        option(f, "expires-in", &self.lifetime)?;
        match self.file {
            Change::Set(file) => write!(f, " --key-file {}", FILES[file])?,
            file => option(f, "key-file", &file)?,
        }
        self.mode.iter().try_for_each(|mode| write!(f, " --key-file-mode {mode:o}"))?;
        option(f, "key-file-env", &self.env)?;
        option(f, "reload", &self.reload)?;
        option(f, "renew-after", &self.renew_after)?;
        self.renew_grace.iter().try_for_each(|grace| write!(f, " --renew-grace {grace}"))
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Create(user, options) => write!(f, "create {}{options:?}", USERS[*user]),
            Command::Refresh { user, grace, revoke_first, options } => {
                write!(f, "refresh {}", USERS[*user])?;
                grace.iter().try_for_each(|grace| write!(f, " --grace {grace}"))?;
                write!(f, "{}{options:?}", if *revoke_first { " --revoke-first" } else { "" })
            }
            Command::Ensure(user, options) => write!(f, "ensure {}{options:?}", USERS[*user]),
            Command::Edit(user, options) => write!(f, "edit {}{options:?}", USERS[*user]),
            Command::Renew(user) => write!(f, "renew {}", user.map_or("", |user| USERS[user])),
            Command::Revoke(user) => write!(f, "revoke {}", USERS[*user]),
            Command::RevokeKey(Pick(key)) => write!(f, "revoke key {key}"),
            Command::Prune(minutes) => write!(f, "prune --ended-for {minutes}"),
            Command::Verify(Pick(key)) => write!(f, "verify key {key}"),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Run(command, Fate::Undisturbed) => write!(f, "{command:?}"),
            Step::Run(command, Fate::Killed(at, alone)) => {
                write!(f, "{command:?}, killed{} at call {at}", if *alone { " alone" } else { "" })
            }
            Step::Run(command, Fate::Held(at, other)) => {
                write!(f, "{command:?}, held at call {at} for: {other:?}")
            }
            Step::Clock(minutes) => write!(f, "the clock moves by {minutes} minutes"),
            Step::Outside(outside) => write!(f, "outside: {outside:?}"),
        }
    }
}
