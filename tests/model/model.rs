//! What each command should do, as one change after the other: a kill leaves what the first so many of them made.

mod delivery;
mod verbs;

use std::collections::{BTreeMap, VecDeque};

use apikey::Code::{self, DbLocked, Usage};
use apikey::Status;

use crate::step::{Change, Command, FILES, MINUTE, Ms, Options, USERS};
use crate::world::{Content, Event, Kept, Known, Place, World};

type Done<T = ()> = Result<T, Code>;

/// A command, and the key that it picks.
pub type Picking<'a> = (&'a Command, &'a str);

/// What another process does when the trail is that long.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    pub at: usize,
    pub command: Picking<'a>,
    pub lock: Lock,
}

/// What keeps it out meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    None,
    /// That somebody has the turn at writing.
    Turn,
    /// That somebody is in a transaction, too.
    Transaction,
}

impl Lock {
    pub const ALL: [Lock; 3] = [Lock::None, Lock::Turn, Lock::Transaction];
}

#[derive(Clone)]
pub struct Model<'a> {
    pub world: World,
    now: Ms,
    /// The prefixes of the keys that were issued to each user, in that order.
    fresh: BTreeMap<String, VecDeque<String>>,
    /// The world before, and after each change.
    pub trail: Vec<World>,
    other: Option<Other<'a>>,
    lock: Lock,
    pub other_answer: Option<Vec<Code>>,
    /// Only what would be done is asked for: every reader can be told.
    is_dry: bool,
}

impl<'a> Model<'a> {
    pub fn new(
        world: &World,
        now: Ms,
        fresh: BTreeMap<String, VecDeque<String>>,
        other: Option<Other<'a>>,
    ) -> Self {
        Model {
            world: world.clone(),
            now,
            fresh,
            trail: vec![world.clone()],
            other,
            lock: Lock::None,
            other_answer: None,
            is_dry: false,
        }
    }

    /// What it answers: the codes of what failed.
    pub fn run(&mut self, (command, key): Picking<'_>) -> Vec<Code> {
        self.point();
        let done = match command {
            Command::Create(user, options) => self.create(USERS[*user], options),
            Command::Refresh { user, grace, revoke_first, options } => {
                self.refresh(USERS[*user], grace.map(|grace| grace * MINUTE), *revoke_first, options)
            }
            Command::Ensure(user, options) => self.ensure(USERS[*user], options),
            Command::Edit(user, options) => self.edit(USERS[*user], options),
            Command::Renew(user) => {
                let failed = self.renew(user.map(|user| USERS[user]));
                self.point();
                return failed;
            }
            Command::Revoke(user) => self.revoke(USERS[*user]),
            Command::RevokeKey(_) => self.revoke_key(&key[..15]),
            Command::Prune(minutes) => self.prune(minutes * MINUTE),
            Command::Verify(_) => self.verify(&key[..15]),
        };
        self.point();
        done.err().into_iter().collect()
    }

    /// A kill may come here, and others may.
    fn point(&mut self) {
        self.trail.push(self.world.clone());
        if let Some(other) = self.other.filter(|other| self.trail.len() > other.at && !self.is_dry) {
            (self.other, self.lock) = (None, other.lock);
            self.other_answer = Some(self.run(other.command));
            self.lock = Lock::None;
        }
    }

    /// Whether this process, where it is the other one, is kept out by that.
    fn check_is_free(&self, lock: Lock) -> Done {
        if self.lock == Lock::None || self.lock == Lock::Turn && lock == Lock::Transaction {
            return Ok(());
        }
        Err(DbLocked)
    }

    fn keep(&mut self, user: &str, settings: &Kept, created: Ms) {
        self.world.kept.remove(user);
        if *settings != Kept::default() {
            let due = settings.renew_after.map(|age| created + age);
            self.world.kept.insert(user.to_owned(), (settings.clone(), due));
        }
    }

    fn nothing_is_due(&mut self, user: &str) {
        if self.active(user).is_none()
            && let Some((_, due)) = self.world.kept.get_mut(user)
        {
            *due = None;
        }
    }

    fn kept(&self, user: &str) -> Kept {
        self.kept_and_due(user).0
    }

    fn kept_and_due(&self, user: &str) -> (Kept, Option<Ms>) {
        self.world.kept.get(user).cloned().unwrap_or_default()
    }

    fn active(&self, user: &str) -> Option<String> {
        let is_active = |known: &Known| known.user == user && known.status == Status::Active;
        self.world.keys.iter().find(|(_, known)| is_active(known)).map(|(prefix, _)| prefix.clone())
    }

    fn is_accepted(&self, prefix: &str) -> bool {
        self.world.keys.get(prefix).is_some_and(|known| known.is_accepted(self.now))
    }

    fn holds(&self, place: &Place, key: &str, in_its_form: bool) -> bool {
        self.world.files.get(&place.name).is_some_and(|file| match &file.holds {
            Content::Key { prefix, env } => prefix == key && (!in_its_form || *env == place.env),
            _ => false,
        })
    }

    fn refuse(&mut self, user: &str) {
        // Others may write between the look at the file and this.
        self.point();
        self.log("refused", Some(user), None, None, None);
        self.point();
    }

    fn note(&mut self, event: &str, prefix: &str, until: Option<Ms>) {
        let Known { user, expires, .. } = self.world.keys[prefix].clone();
        self.log(event, Some(&user), Some(prefix), expires, until);
    }

    fn log(
        &mut self,
        event: &str,
        user: Option<&str>,
        prefix: Option<&str>,
        expires: Option<Ms>,
        until: Option<Ms>,
    ) {
        let (user, prefix) = (user.map(str::to_owned), prefix.map(str::to_owned));
        self.world.log.push(Event { at: self.now, event: event.to_owned(), user, prefix, expires, until });
    }
}

/// What is kept becomes by the options.
fn of(options: &Options, kept: Kept) -> Done<Kept> {
    fn change<T: Copy, U>(change: Change<T>, kept: Option<U>, to: impl Fn(T) -> U) -> Option<U> {
        match change {
            Change::Keep => kept,
            Change::Set(value) => Some(to(value)),
            Change::TakeAway => None,
        }
    }
    let as_new = |name| Place { name, mode: 0o600, env: false };
    let place = change(options.file, kept.file.clone(), |file| {
        let name = FILES[file].to_owned();
        kept.file.clone().map_or_else(|| as_new(name.clone()), |kept| Place { name: name.clone(), ..kept })
    });
    let says_how = options.mode.is_some() || matches!(options.env, Change::Set(()));
    if place.is_none() && (says_how || matches!(options.reload, Change::Set(_))) {
        return Err(Usage);
    }
    let place = place.map(|place| Place {
        mode: options.mode.unwrap_or(place.mode),
        env: change(options.env, place.env.then_some(()), |()| ()).is_some(),
        ..place
    });
    let ms = |minutes| minutes * MINUTE;
    let settings = Kept {
        name: change(options.name, kept.name, |name| format!("label {name}")),
        lifetime: change(options.lifetime, kept.lifetime, ms),
        reload: change(options.reload, kept.reload.filter(|_| place.is_some()), |works| works),
        renew_after: change(options.renew_after, kept.renew_after, ms),
        renew_grace: options.renew_grace.map(ms).or(kept.renew_grace),
        file: place,
    };
    match settings.renew_after {
        Some(_) if settings.file.is_none() => Err(Usage),
        Some(age) if settings.lifetime.is_some_and(|lifetime| age >= lifetime) => Err(Usage),
        _ => Ok(settings),
    }
}
