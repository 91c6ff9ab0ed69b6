//! Who changes the keys of users of its own, and knows after each command which of them are accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::commands::{Effect, Order, choose};
use crate::judge::judge;
use crate::manner::Manner;
use crate::random::Random;
use crate::rows::{Reader, Row};
use crate::soak::{Soak, lock};

/// A user with the keys that it was ever seen to have, by prefix.
pub struct User {
    pub name: String,
    pub key_file: Option<PathBuf>,
    pub active: Option<String>,
    pub keys: BTreeMap<String, Key>,
    /// A key is on its way into the file: any command of anybody may bring it there.
    pub pending: bool,
    slot: usize,
    base: String,
    generation: u32,
}

#[derive(Default)]
pub struct Key {
    /// None for one that was only seen in the database.
    pub text: Option<String>,
    pub state: State,
}

#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub enum State {
    #[default]
    Unknown,
    Accepted,
    /// It ends within minutes.
    Fading,
    Ended,
}

impl User {
    fn new(soak: &Soak, base: String, is_daemon: bool) -> Self {
        let user = User {
            name: String::new(),
            key_file: is_daemon.then(PathBuf::new),
            active: None,
            keys: BTreeMap::new(),
            pending: false,
            slot: soak.board.add(),
            base,
            generation: 0,
        };
        user.next(soak)
    }

    /// The next user in its place, who has nothing yet.
    fn next(self, soak: &Soak) -> Self {
        soak.board.forget(self.slot);
        let generation = self.generation + 1;
        let name = format!("{}.{generation}", self.base);
        let key_file = self.key_file.is_some().then(|| soak.disk.join("daemons").join(&name));
        let (active, keys, pending) = (None, BTreeMap::new(), false);
        User { name, key_file, generation, active, keys, pending, ..self }
    }

    pub fn accepted(&self) -> BTreeSet<String> {
        let accepted = self.keys.iter().filter(|(_, key)| key.state == State::Accepted);
        accepted.map(|(prefix, _)| prefix.clone()).collect()
    }

    fn learn(&mut self, text: &str) {
        let text = text.trim_end();
        if apikey::Key::parse(text.as_bytes()).is_some() {
            self.keys.entry(text[..15].to_owned()).or_default().text = Some(text.to_owned());
        }
    }

    pub fn in_file(&self) -> Option<String> {
        fs::read_to_string(self.key_file.as_ref()?).ok()
    }
}

pub struct Driver<'a> {
    soak: &'a Soak,
    random: Random,
    reader: Reader,
    users: Vec<User>,
}

impl<'a> Driver<'a> {
    pub fn new(soak: &'a Soak, number: usize, users: usize, random: Random) -> Result<Self> {
        let user = |at| User::new(soak, format!("w{number}u{at}"), at % 2 == 1);
        let reader = Reader::open(&soak.database())?;
        Ok(Driver { soak, random, reader, users: (0..users).map(user).collect() })
    }

    /// Changes this and that until the soak is over, and settles all then.
    pub fn drive(mut self) -> Result<Vec<User>> {
        while self.soak.goes_on() {
            let at = self.random.below(self.users.len());
            self.change(at)?;
        }
        for at in 0..self.users.len() {
            self.settle(at)?;
        }
        Ok(self.users)
    }

    fn change(&mut self, at: usize) -> Result<()> {
        if self.users[at].pending {
            return self.go_on_with(at);
        }
        let manner = Manner::of(self.soak, 20, &mut self.random);
        let order = choose(&self.users[at], manner.ahead == 0, &mut self.random);
        self.command(at, &order, manner)
    }

    /// Brings a delivery to its end that was interrupted.
    fn go_on_with(&mut self, at: usize) -> Result<()> {
        self.command(at, &Order::ensure(&self.users[at]), Manner::default())
    }

    fn settle(&mut self, at: usize) -> Result<()> {
        let start = Instant::now();
        while self.users[at].pending {
            self.go_on_with(at)?;
            let user = &self.users[at].name;
            ensure!(start.elapsed() < Duration::from_secs(60), "the delivery to {user} comes to no end");
        }
        if self.users[at].key_file.is_some() {
            // The next delivery takes away what one that was killed before has left beside the file.
            let order = Order::refresh(&self.users[at]);
            self.command(at, &order, Manner::default())?;
        }
        Ok(())
    }

    fn command(&mut self, at: usize, order: &Order, manner: Manner) -> Result<()> {
        let soak = self.soak;
        if order.effect != Effect::Nothing || self.users[at].pending {
            soak.board.unsettle(self.users[at].slot);
        }
        let args: Vec<&str> = order.args.iter().map(String::as_str).collect();
        let outcome = soak.run(&args, manner, &mut self.random)?;
        if outcome.may_be_done_yet() {
            self.let_somebody_write()?;
        }
        let user = &mut self.users[at];
        if let Some(key) = outcome.answer["key"].as_str() {
            user.learn(key);
        }
        if outcome.was_full && order.effect.revokes() {
            let ended = user.keys.iter().filter(|(_, key)| key.state != State::Ended);
            lock(&soak.not_in_log).extend(ended.map(|(prefix, _)| prefix.clone()));
        }
        let by_time = outcome.answer["message"].as_str().is_some_and(|it| it.contains("made to expire"));
        let mut rows = look(&self.reader, user)?;
        let was_pending = user.pending;
        user.pending = rows.iter().any(|row| row.status == "pending");
        if user.pending && !was_pending {
            soak.interrupted.fetch_add(1, Ordering::Relaxed);
            // Somebody else may just be bringing it to its end.
            thread::sleep(Duration::from_millis(5));
            rows = look(&self.reader, user)?;
        }
        if by_time || rows.iter().any(Row::has_expired) {
            lock(&soak.abandoned).insert(user.name.clone());
            let user = self.users.remove(at).next(soak);
            self.users.insert(at, user);
            return Ok(());
        }
        if let Some(wrong) = judge(user, order, &outcome, &rows, was_pending || user.pending) {
            soak.fault(format!("{}: {wrong}: {outcome}, {rows:?}", user.name));
        }
        self.take(at, &rows);
        Ok(())
    }

    /// What a command that was killed has left in the log is committed by whoever writes next.
    fn let_somebody_write(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.soak.run(&["create", "first"], Manner::default(), &mut self.random)?.status != Some(3) {
            ensure!(start.elapsed() < Duration::from_secs(120), "nobody can write");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Notes how the keys stand, and publishes it.
    fn take(&mut self, at: usize, rows: &[Row]) {
        let (soak, user) = (self.soak, &mut self.users[at]);
        user.active = rows.iter().find(|row| row.status == "active").map(|row| row.prefix.clone());
        for (prefix, key) in &mut user.keys {
            let state = match rows.iter().find(|row| row.prefix == *prefix) {
                Some(row) if row.is_accepted && row.ends_soon => State::Fading,
                Some(row) if row.is_accepted => State::Accepted,
                _ => State::Ended,
            };
            if state == State::Ended && key.state != State::Ended {
                key.text.iter().for_each(|text| soak.board.ended(user.slot, text.clone()));
            }
            key.state = state;
        }
        if !user.pending {
            let accepted = user.keys.values().filter(|key| key.state == State::Accepted);
            soak.board.settle(user.slot, accepted.filter_map(|key| key.text.clone()).collect());
        }
    }
}

/// Reads what the database says of the user, and learns the key that is in the file.
fn look(reader: &Reader, user: &mut User) -> Result<Vec<Row>> {
    let rows = reader.rows_of(&user.name)?;
    if let Some(text) = user.in_file() {
        user.learn(&text);
    }
    for row in &rows {
        user.keys.entry(row.prefix.clone()).or_default();
    }
    Ok(rows)
}
