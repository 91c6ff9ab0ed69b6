//! A sequence of steps on a host of its own, and what is asserted after each.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use apikey::{Authority, Timestamp, Verdict, Verifier};
use proptest::test_runner::TestCaseError;

use crate::compare::{accepted_by_log, differences, is_same};
use crate::model::{Lock, Model, Other};
use crate::step::{Command, FILES, Fate, MINUTE, Ms, Outside, Pick, Step};
use crate::tally::{self, Tally};
use crate::traced::{IS_POSSIBLE, Traced};
use crate::worker::{Answer, Task, Workers, timestamp};
use crate::world::{Host, World};

/// No key that was ever issued.
const NO_KEY: &str = "ak_000000000000000000000000000000000000000000000000000000000000000000000000";
const START: &str = "2030-01-01T00:00:00.000Z";

pub struct Sequence<'a> {
    host: Host,
    world: World,
    now: Ms,
    /// The prefixes of all that was issued.
    issued: HashSet<String>,
    workers: &'a mut Workers,
    tally: &'a mut Tally,
}

/// What became of a command.
struct Ran {
    /// None where it was killed.
    answer: Option<Answer>,
    other: Option<Answer>,
}

impl<'a> Sequence<'a> {
    pub fn new(workers: &'a mut Workers, tally: &'a mut Tally) -> Self {
        let host = Host::new();
        let database = host.folder().join("keys.db");
        drop(Authority::open_or_create(&database, Duration::ZERO, Timestamp::now).unwrap());
        let now = Timestamp::parse(START).unwrap().unix_millis().cast_signed();
        Sequence { host, world: World::default(), now, issued: HashSet::new(), workers, tally }
    }

    pub fn run(mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        self.tally.count("sequences");
        for (number, step) in steps.iter().enumerate() {
            self.tally.count("steps");
            let done = match step {
                Step::Run(command, fate) => self.command(command, fate),
                Step::Clock(minutes) => {
                    self.tally.count(if *minutes < 0 { "the clock goes back" } else { "the clock goes on" });
                    self.now += minutes * MINUTE;
                    Ok(())
                }
                Step::Outside(outside) => {
                    self.tally.count("others change a file");
                    self.outside(*outside);
                    self.world = World { log: self.world.log.clone(), ..self.host.look() };
                    Ok(())
                }
            };
            done.and_then(|()| self.check()).map_err(|wrong| {
                TestCaseError::fail(format!(
                    "step {}, {step:?}, at {}: {wrong}",
                    number + 1,
                    timestamp(self.now)
                ))
            })?;
        }
        let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        assert_eq!(self.host.sqlite().query_row("PRAGMA integrity_check", [], check).unwrap(), "ok");
        Ok(())
    }

    fn key(&self, command: &Command) -> String {
        let (Command::RevokeKey(Pick(pick)) | Command::Verify(Pick(pick))) = command else {
            return NO_KEY.to_owned();
        };
        self.picked(Pick(*pick))
    }

    fn picked(&self, Pick(pick): Pick) -> String {
        let seen = &self.host.seen;
        pick.checked_rem(seen.len()).map_or(NO_KEY.to_owned(), |pick| seen[pick].clone())
    }

    fn command(&mut self, command: &Command, fate: &Fate) -> Result<(), String> {
        let key = self.key(command);
        let other = match fate {
            Fate::Held(_, other) => Some((&**other, self.key(other))),
            _ => None,
        };
        let ran = self.let_run(command, &key, fate);
        let seen = self.host.look();
        let fresh = self.fresh(&seen);
        let begin = |other| Model::new(&self.world, self.now, fresh.clone(), other);
        let mut model = begin(None);
        let mut answer = Answer::of(&model.run((command, &key)));
        let mut worlds = vec![model.world.clone()];
        if ran.answer.is_none() {
            let is_seen = |world: &World| is_same(world, &seen, self.now, true);
            let [before, between, after] = tally::KILLS;
            self.tally.count(match model.trail.iter().position(is_seen) {
                _ if model.trail.iter().all(|world| *world == self.world) => "killed where nothing changes",
                Some(0) => before,
                Some(_) if is_seen(&model.world) => after,
                _ => between,
            });
            worlds = model.trail;
        } else if let (Some(other_said), Some((other, key_of_other))) = (&ran.other, &other) {
            // It came at one of these moments, and what it met is told by what it said.
            worlds.clear();
            for (at, lock) in (1..model.trail.len()).flat_map(|at| Lock::ALL.map(|lock| (at, lock))) {
                let mut model = begin(Some(Other { at, command: (other, key_of_other), lock }));
                let answered = Answer::of(&model.run((command, &key)));
                let other_answered = model.other_answer.as_deref().map(Answer::of);
                if ran.answer.as_ref() == Some(&answered) && other_answered.as_ref() == Some(other_said) {
                    answer = answered;
                    worlds.push(model.world);
                }
            }
            self.tally.count(format!("another in between: {other_said}"));
        }
        if let Some(said) = &ran.answer {
            let nothing = if seen == self.world { ", as it was" } else { "" };
            let verb = format!("{command:?}");
            self.tally.count(format!("{}: {said}{nothing}", verb.split(' ').next().unwrap_or_default()));
            if *said != answer {
                return Err(format!("it answers {said}, and the model {answer}"));
            }
        }
        let is_killed = ran.answer.is_none();
        if worlds.iter().all(|world| !is_same(world, &seen, self.now, is_killed)) {
            return Err(differences(&worlds, &seen, &self.world));
        }
        let before = std::mem::replace(&mut self.world, seen);
        if other.is_some() { Ok(()) } else { self.check_readers(&before, command) }
    }

    /// The prefixes of the keys that were issued since, by user.
    fn fresh(&mut self, seen: &World) -> BTreeMap<String, VecDeque<String>> {
        let mut fresh: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        for event in seen.log.iter().filter(|event| event.event == "issued") {
            let (user, prefix) = (event.user.clone().unwrap(), event.prefix.clone().unwrap());
            if self.issued.insert(prefix.clone()) {
                fresh.entry(user).or_default().push_back(prefix);
            }
        }
        fresh
    }

    /// Whatever was killed: who reads a key file that is kept has a key that is accepted, but where that was revoked.
    fn check_readers(&self, before: &World, command: &Command) -> Result<(), String> {
        if matches!(
            command,
            Command::Revoke(_) | Command::RevokeKey(_) | Command::Refresh { revoke_first: true, .. }
        ) {
            return Ok(());
        }
        for (user, (kept, _)) in &self.world.kept {
            let Some(place) = &kept.file else { continue };
            let was_there = before.kept.get(user).is_some_and(|(kept, _)| kept.file.as_ref() == Some(place));
            if was_there
                && before.has_key(place, user, self.now)
                && !self.world.has_key(place, user, self.now)
            {
                return Err(format!("the reader of {user} has no key: {:?}before\n{before:?}", self.world));
            }
        }
        Ok(())
    }

    /// Runs it as far as its fate lets it.
    fn let_run(&mut self, command: &Command, key: &str, fate: &Fate) -> Ran {
        let (folder, now) = (self.host.folder().to_owned(), self.now);
        let task = |command: &Command, key: &str, seconds| Task {
            folder: folder.clone(),
            now,
            command: command.clone(),
            key: key.to_owned(),
            timeout: Duration::from_secs(seconds),
        };
        // Who is held while it makes the index of the log anew, as the first one does that opens the database, would
        // keep others waiting for ten seconds.
        let is_alone = matches!(fate, Fate::Undisturbed | Fate::Killed(_, true));
        let sqlite = (!is_alone).then(|| self.host.sqlite());
        sqlite.iter().for_each(|sqlite| drop(sqlite.query_row("SELECT 1 FROM keys", [], |_| Ok(()))));
        let mut other_said = None;
        let mut keys = Vec::new();
        let mut worker = self.workers.one();
        let mut traced = None;
        let call = match fate {
            Fate::Killed(call, _) | Fate::Held(call, _) if IS_POSSIBLE => Some(*call),
            _ => None,
        };
        if call.is_some() {
            traced = Some(Traced::seize(worker.thread, is_alone));
        }
        worker.tell(&task(command, key, 10));
        if let (Some(mut traced), Some(call)) = (traced, call) {
            let is_there = traced.goes_on_to(call);
            match fate {
                Fate::Killed(..) if is_there => {
                    traced.kill(worker.process());
                    let (given, answer) = worker.hear();
                    given.iter().for_each(|key| self.host.has_seen(key));
                    // What it had said before it was killed is no answer: nobody is to rely on it.
                    drop(answer);
                    return Ran { answer: None, other: None };
                }
                Fate::Held(_, other) if is_there => {
                    let mut another = self.workers.one();
                    another.tell(&task(other, &self.key(other), 0));
                    let (given, answer) = another.hear();
                    keys.extend(given);
                    other_said = answer;
                    self.workers.back(another);
                    traced.let_go();
                }
                _ => traced.let_go(),
            }
        }
        let (given, answer) = worker.hear();
        self.workers.back(worker);
        keys.extend(given);
        keys.iter().for_each(|key| self.host.has_seen(key));
        assert!(answer.is_some(), "the other process died");
        Ran { answer, other: other_said }
    }

    fn outside(&self, outside: Outside) {
        let at = |file: usize| self.host.folder().join(FILES[file]);
        match outside {
            Outside::Remove(file) => drop(fs::remove_file(at(file))),
            Outside::Empty(file) => fs::write(at(file), "").unwrap(),
            Outside::Junk(file) => fs::write(at(file), "PASSWORD=1234").unwrap(),
            Outside::Holds(file, pick) => fs::write(at(file), self.picked(pick)).unwrap(),
            Outside::Open(file) if at(file).exists() => {
                fs::set_permissions(at(file), fs::Permissions::from_mode(0o644)).unwrap();
            }
            Outside::Open(_) => {}
            Outside::NoStage | Outside::HalfAStage => {
                for (file, prefix) in self.world.stages.keys() {
                    let stage = self.host.folder().join(format!(".{file}.{prefix}"));
                    match outside {
                        Outside::NoStage => fs::remove_file(stage).unwrap(),
                        _ => fs::write(stage, "ak_").unwrap(),
                    }
                }
            }
        }
    }

    /// What holds after each step, whatever was done: now, and if the clock went back or on.
    fn check(&self) -> Result<(), String> {
        let (host, world) = (&self.host, &self.world);
        let times = [0, -75, 75].map(|minutes| self.now + minutes * MINUTE);
        let verifier = Verifier::open_read_only(&host.folder().join("keys.db"), Duration::ZERO).unwrap();
        for (now, view) in times.into_iter().zip(host.accepted(&times)) {
            let accepted = world.keys.iter().filter(|(_, known)| known.is_accepted(now));
            let accepted: BTreeSet<String> = accepted.map(|(prefix, _)| prefix.clone()).collect();
            let at = timestamp(now);
            if view != accepted {
                return Err(format!(
                    "at {at} the view accepts {view:?}, and the model {accepted:?}: {world:?}"
                ));
            }
            let log = accepted_by_log(world, now);
            if log != accepted {
                return Err(format!(
                    "by the log, {log:?} are accepted at {at}, by the model {accepted:?}: {world:?}"
                ));
            }
            for key in &host.seen {
                let status = match verifier.verify(key.as_bytes(), at).unwrap() {
                    Verdict::Accepted(record) | Verdict::Refused(record) => Some(record.status),
                    _ => None,
                };
                let expected = world.keys.get(&key[..15]).map(|known| known.status(now));
                if status != expected {
                    return Err(format!("{key} is {status:?} at {at}, by the model {expected:?}: {world:?}"));
                }
            }
        }
        Ok(())
    }
}
