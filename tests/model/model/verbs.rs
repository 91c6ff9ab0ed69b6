//! The commands.

use apikey::Code::{DbLocked, InternalError, NoKey, Undeliverable, Usage};
use apikey::{Code, Status};

use super::delivery::{Stands, Why};
use super::{Done, Lock, Model, of};
use crate::step::{Change, MINUTE, Ms, Options};
use crate::world::{Kept, Known, Pending, World};

impl Model<'_> {
    pub(super) fn create(&mut self, user: &str, options: &Options) -> Done {
        self.recover_for(user)?;
        let settings = of(options, Kept::default())?;
        self.issue(user, &settings, &Why::Create, false)
    }

    pub(super) fn refresh(
        &mut self,
        user: &str,
        grace: Option<Ms>,
        revoke_first: bool,
        options: &Options,
    ) -> Done {
        let mut ended = false;
        if revoke_first {
            let pending = self.world.pending.get(user).map(|pending| pending.kept.clone());
            of(options, pending.unwrap_or_else(|| self.kept(user)))?;
            ended = match self.revoke(user) {
                Err(DbLocked) => return Err(DbLocked),
                revoked => revoked.is_ok(),
            };
            self.point();
        }
        self.check_is_free(Lock::Turn)?;
        let waits = self.recover(|_| true).remove(user);
        self.replace(user, options, &Why::Refresh { grace, first: revoke_first, ended }, waits)
    }

    /// Where there is nothing to do, others' deliveries are left alone, too.
    pub(super) fn ensure(&mut self, user: &str, options: &Options) -> Done {
        let mut dry = Model { is_dry: true, ..self.clone() };
        let waits = dry.recover(|other| other == user).remove(user);
        if let Err(code) = dry.settle(user, options, waits) {
            if code == Undeliverable && self.lock == Lock::None {
                self.refuse(user);
            }
            return Err(code);
        }
        if dry.world == self.world {
            return Ok(());
        }
        self.point();
        self.check_is_free(Lock::Turn)?;
        let waits = self.recover(|_| true).remove(user);
        self.settle(user, options, waits)
    }

    pub(super) fn settle(&mut self, user: &str, options: &Options, waits: Option<Stands>) -> Done {
        if waits.is_some_and(Stands::is_not_over) {
            self.replace(user, options, &Why::Ensure, waits)?;
        }
        let (kept, due) = self.kept_and_due(user);
        let settings = of(options, kept.clone())?;
        let place = settings.file.clone().ok_or(Usage)?;
        let current = self.active(user);
        let is_in_file = current.as_ref().is_some_and(|prefix| self.holds(&place, prefix, true));
        if !is_in_file && !self.may_replace(user, &place, None) {
            return Err(Undeliverable);
        }
        let Some(current) = current.filter(|_| is_in_file) else {
            return self.replace(user, options, &Why::Ensure, None);
        };
        let Known { created, mut expires, .. } = self.world.keys[&current];
        if settings.lifetime != kept.lifetime {
            expires = settings.lifetime.map(|lifetime| created + lifetime);
        }
        let as_kept = due.filter(|_| settings.renew_after == kept.renew_after);
        let ends = [expires, as_kept, settings.renew_after.map(|age| created + age)];
        if ends.into_iter().flatten().any(|end| end <= self.now) {
            return self.replace(user, options, &Why::Ensure, None);
        }
        self.change(user, &current, &settings, expires, true)
    }

    pub(super) fn edit(&mut self, user: &str, options: &Options) -> Done {
        self.recover_for(user)?;
        let current = self.active(user).filter(|prefix| self.is_accepted(prefix)).ok_or(NoKey)?;
        let settings = of(options, self.kept(user))?;
        let expires = match options.lifetime {
            Change::Keep => self.world.keys[&current].expires,
            Change::Set(lifetime) => Some(self.now + lifetime * MINUTE),
            Change::TakeAway => None,
        };
        let place = settings.file.as_ref().filter(|_| options.mode.is_some());
        if place.is_some_and(|place| !self.holds(place, &current, true)) {
            return Err(Undeliverable);
        }
        self.change(user, &current, &settings, expires, options.mode.is_some())
    }

    /// Changes what is kept, and the file's mode, with no new key.
    pub(super) fn change(
        &mut self,
        user: &str,
        prefix: &str,
        settings: &Kept,
        expires: Option<Ms>,
        mode: bool,
    ) -> Done {
        let (kept, due) = self.kept_and_due(user);
        let key = &self.world.keys[prefix];
        let is_as_it_is = *settings == kept && key.name == settings.name && key.expires == expires;
        if let Some(place) = settings.file.as_ref().filter(|_| mode) {
            let file = self.world.files.get_mut(&place.name).unwrap();
            let as_it_was = file.mode;
            // First what nobody is to read any more, then what somebody is to.
            file.mode &= place.mode;
            self.point();
            if as_it_was != place.mode {
                self.world.files.get_mut(&place.name).unwrap().mode = place.mode;
                self.point();
            }
        }
        if is_as_it_is {
            return Ok(());
        }
        // It may have been revoked meanwhile.
        self.active(user).filter(|active| active == prefix).ok_or(NoKey)?;
        let key = self.world.keys.get_mut(prefix).unwrap();
        (key.name, key.expires) = (settings.name.clone(), expires);
        let created = key.created;
        self.keep(user, settings, created);
        if let Some((_, Some(due_at))) = self.world.kept.get_mut(user)
            && kept.renew_after == settings.renew_after
        {
            *due_at = due.map_or(*due_at, |due| due.min(*due_at));
        }
        self.note("edited", prefix, None);
        self.point();
        Ok(())
    }

    pub(super) fn renew(&mut self, user: Option<&str>) -> Vec<Code> {
        let waits = |pending: &Pending| pending.kept.renew_after.is_some();
        let waiting = self.world.pending.iter().filter(|(_, pending)| waits(pending)).map(|(user, _)| user);
        let mut due: Vec<String> = waiting.cloned().collect();
        let mut old: Vec<(Ms, &String)> =
            self.world.kept.iter().filter_map(|(user, (_, due))| Some(((*due)?, user))).collect();
        old.retain(|(at, user)| *at <= self.now && !due.contains(user));
        old.sort_unstable();
        let old: Vec<String> = old.into_iter().map(|(_, user)| user.clone()).collect();
        due.extend(old);
        due.retain(|due| user.is_none_or(|user| user == due));
        let (mut failed, mut is_begun) = (Vec::new(), false);
        for user in due {
            let is_due = |model: &Self| {
                model.world.pending.get(&user).is_some_and(waits)
                    || model.kept_and_due(&user).1.is_some_and(|due| due <= model.now)
                        && model.active(&user).is_some()
            };
            if !is_due(self) {
                continue;
            }
            if let Err(code) = self.check_is_free(Lock::Turn) {
                return vec![code];
            }
            if !std::mem::replace(&mut is_begun, true) {
                self.recover(|other| other != user);
            }
            self.point();
            let had_current = self.active(&user).is_some();
            self.point();
            let stands = self.recover(|other| other == user).remove(&user);
            let undone = match stands {
                Some(Stands::Undone(created)) if !had_current => Some(created),
                _ => None,
            };
            let kept = self.kept(&user);
            let is_renewed = kept.file.is_some() && kept.renew_after.is_some();
            if stands.is_some_and(Stands::is_not_over) || (undone.is_some() || is_due(self)) && is_renewed {
                let renewed = self.replace(&user, &Options::default(), &Why::Renew { undone }, stands);
                failed.extend(renewed.err().filter(|code| *code != NoKey));
            }
        }
        failed
    }

    pub(super) fn revoke(&mut self, user: &str) -> Done {
        self.check_is_free(Lock::Transaction)?;
        let is_held = |known: &Known| known.user == user && known.status.is_accepted();
        let held = self.world.keys.iter().filter(|(_, known)| is_held(known));
        self.end(user, held.map(|(prefix, _)| prefix.clone()).collect(), true)
    }

    pub(super) fn revoke_key(&mut self, prefix: &str) -> Done {
        self.check_is_free(Lock::Transaction)?;
        let known = self.world.keys.get(prefix).ok_or(NoKey)?.clone();
        let held = Vec::from_iter(known.status.is_accepted().then(|| prefix.to_owned()));
        self.end(&known.user, held, false)
    }

    /// Revokes what is held. What was to come with a pending key stays where nothing else is kept.
    pub(super) fn end(&mut self, user: &str, mut held: Vec<String>, is_all: bool) -> Done {
        let order = [Status::Active, Status::Pending, Status::Retiring];
        held.sort_by_key(|prefix| order.iter().position(|it| *it == self.world.keys[prefix].status));
        let (now, mut is_any, mut staged) = (self.now, false, None);
        for prefix in &held {
            let known = self.world.keys.get_mut(prefix).unwrap();
            is_any |= known.status(now) != Status::Revoked;
            let was_pending = known.status == Status::Pending;
            (known.status, known.revoked) =
                (Status::Revoked, Some(known.revoked.map_or(now, |revoked| revoked.min(now))));
            if was_pending {
                if is_all && self.world.pending[user].tell {
                    self.world.kept.remove(user);
                }
                staged = self.forget_pending(user);
            }
        }
        self.nothing_is_due(user);
        held.iter().for_each(|prefix| self.note("revoked", prefix, None));
        self.point();
        self.unstage(staged);
        if is_any { Ok(()) } else { Err(NoKey) }
    }

    pub(super) fn prune(&mut self, ended_for: Ms) -> Done {
        if self.world.log.iter().any(|event| event.at > self.now) {
            return Err(InternalError);
        }
        let (before, mut is_noted) = (self.now - ended_for, false);
        let (mut what, mut last) = (0, String::new());
        while what < 3 {
            let found = self.old_keys(before, &last);
            // Others may write between the look and this.
            self.point();
            let old: Vec<String> =
                self.old_keys(before, &last).into_iter().filter(|key| found.contains(key)).collect();
            let was = self.world.clone();
            let World { keys, log, kept, .. } = &mut self.world;
            match what {
                0 => {
                    log.retain(|event| !event.prefix.as_ref().is_some_and(|prefix| old.contains(prefix)));
                    keys.retain(|prefix, _| !old.contains(prefix));
                }
                1 => log.retain(|event| {
                    event.at >= before
                        || event.prefix.as_ref().is_some_and(|prefix| keys.contains_key(prefix))
                }),
                _ => kept.retain(|user, _| keys.values().any(|known| known.user == *user)),
            }
            match found.into_iter().next_back() {
                Some(found) if what == 0 => last = found,
                _ => what += 1,
            }
            if self.world == was {
                continue;
            }
            self.check_is_free(Lock::Turn).inspect_err(|_| self.world = was)?;
            if !std::mem::replace(&mut is_noted, true) {
                self.log("pruned", None, None, None, None);
            }
            self.point();
        }
        Ok(())
    }

    /// The keys that ended before then, in the order in which they are looked for, past the last one.
    fn old_keys(&self, before: Ms, last: &str) -> Vec<String> {
        let ended = |known: &Known| [known.revoked, known.expires].into_iter().flatten().min();
        let is_current = |known: &Known| matches!(known.status, Status::Active | Status::Pending);
        let is_old = |known: &Known| !is_current(known) && ended(known).is_some_and(|end| end < before);
        let past = self.world.keys.iter().filter(|(prefix, known)| prefix.as_str() > last && is_old(known));
        past.map(|(prefix, _)| prefix.clone()).collect()
    }

    pub(super) fn verify(&mut self, prefix: &str) -> Done {
        let now = self.now;
        let known = self.world.keys.get_mut(prefix).filter(|known| known.is_accepted(now));
        let known = known.ok_or(Code::InvalidKey)?;
        let is_news = |used: Ms| (used - now).abs() >= MINUTE;
        if self.lock == Lock::None && known.used.is_none_or(is_news) {
            known.used = Some(now);
            self.point();
        }
        Ok(())
    }
}
