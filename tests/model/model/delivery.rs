//! How a key is issued, and its way into a file.

use std::collections::{BTreeMap, VecDeque};

use apikey::Code::{DeliveryPending, KeyExists, NoKey, Undeliverable};
use apikey::Status;

use super::{Done, Lock, Model, of};
use crate::step::{Change, MINUTE, Ms, Options};
use crate::world::{Content, File, Kept, Known, Pending, Place, World};

/// Where a delivery stands.
#[derive(Clone, Copy, PartialEq)]
pub enum Stands {
    Finished,
    Undone(Ms),
    AwaitsReload,
    Stuck,
}

/// Why a key is replaced.
pub enum Why {
    Create,
    /// `first` is whether all that the user had was to be revoked first, and `ended` whether there was something.
    Refresh {
        grace: Option<Ms>,
        first: bool,
        ended: bool,
    },
    Ensure,
    Renew {
        undone: Option<Ms>,
    },
}

impl Model<'_> {
    pub(super) fn recover_for(&mut self, user: &str) -> Done {
        self.check_is_free(Lock::Turn)?;
        let stands = self.recover(|_| true).remove(user);
        if stands.is_some_and(Stands::is_not_over) { Err(DeliveryPending) } else { Ok(()) }
    }

    /// Finishes or undoes what earlier runs left.
    pub(super) fn recover(&mut self, is_meant: impl Fn(&str) -> bool) -> BTreeMap<String, Stands> {
        let users: Vec<String> = self.world.pending.keys().filter(|user| is_meant(user)).cloned().collect();
        users.into_iter().filter_map(|user| Some((user.clone(), self.go_on_with(&user)?))).collect()
    }

    pub(super) fn go_on_with(&mut self, user: &str) -> Option<Stands> {
        let pending = self.world.pending.get(user)?.clone();
        let (prefix, place) = (&pending.prefix, pending.kept.file.clone().unwrap());
        let stage = (place.name.clone(), prefix.clone());
        let staged = self.world.stages.get(&stage).copied();
        let holds_current = || self.active(user).is_some_and(|current| self.holds(&place, &current, false));
        if self.is_accepted(prefix) && !self.holds(&place, prefix, false) {
            match staged {
                Some(true) if self.may_replace(user, &place, None) => {
                    self.put_in_place(&place, prefix).ok()?
                }
                Some(false) => return Some(self.give_up(user)),
                None if holds_current() => return Some(self.give_up(user)),
                _ => return Some(Stands::Stuck),
            }
        } else if !self.is_accepted(prefix) {
            return Some(self.give_up(user));
        }
        if pending.tell {
            return Some(Stands::AwaitsReload);
        }
        self.activate(user, prefix, &pending.kept, pending.grace).ok()?;
        Some(Stands::Finished)
    }

    pub(super) fn give_up(&mut self, user: &str) -> Stands {
        let (now, prefix) = (self.now, self.world.pending[user].prefix.clone());
        let staged = self.forget_pending(user);
        if let Some((_, Some(due))) = self.world.kept.get_mut(user) {
            *due = now.min(*due);
        }
        let known = self.world.keys.get_mut(&prefix).unwrap();
        (known.status, known.revoked) = (Status::Revoked, Some(now));
        let created = known.created;
        self.note("undone", &prefix, None);
        self.point();
        self.unstage(staged);
        Stands::Undone(created)
    }

    pub(super) fn replace(
        &mut self,
        user: &str,
        options: &Options,
        why: &Why,
        waits: Option<Stands>,
    ) -> Done {
        let grace = match why {
            Why::Refresh { grace, .. } => *grace,
            _ => None,
        };
        let was_ended = matches!(why, Why::Refresh { ended: true, .. });
        if let (Some(Stands::AwaitsReload), Some(pending)) = (waits, self.world.pending.get(user).cloned()) {
            let settings = of(options, pending.kept.clone())?;
            let says_how = settings.reload.is_some() || options.reload == Change::TakeAway;
            let is_met = Kept { reload: pending.kept.reload, ..settings.clone() } == pending.kept;
            let may_be_met = !matches!(why, Why::Refresh { first: true, .. });
            if may_be_met && says_how && is_met && grace.is_none_or(|grace| grace == pending.grace) {
                return self.tell(user, &pending.prefix, &settings, pending.grace, settings.reload);
            }
        }
        if waits.is_some_and(Stands::is_not_over) {
            return Err(DeliveryPending);
        }
        let settings = of(options, self.kept(user))?;
        let is_first = self.kept(user).file.is_none() && self.active(user).is_none() && !was_ended;
        self.issue(user, &settings, why, !is_first)
    }

    pub(super) fn issue(&mut self, user: &str, settings: &Kept, why: &Why, tells: bool) -> Done {
        let seen = self.active(user);
        let created = seen.as_ref().map(|seen| self.world.keys[seen].created);
        let (grace, since) = match why {
            Why::Create => (0, None),
            Why::Refresh { grace, .. } => (grace.unwrap_or(0), None),
            Why::Ensure => (settings.renew_grace.unwrap_or(1440 * MINUTE), None),
            Why::Renew { undone } => {
                let since = created.or(*undone).ok_or(NoKey)?;
                (settings.renew_grace.unwrap_or(1440 * MINUTE), Some(since))
            }
        };
        let Some(place) = &settings.file else {
            self.check_replaceable(user, why, seen.as_deref())?;
            self.retire(user, grace);
            let prefix = self.new_key(user, settings, Status::Active);
            self.keep(user, settings, self.now);
            self.note("issued", &prefix, None);
            self.point();
            return Ok(());
        };
        if !self.may_replace(user, place, since) {
            self.refuse(user);
            return Err(Undeliverable);
        }
        let (now, World { keys, stages, .. }) = (self.now, &mut self.world);
        let is_accepted = |prefix: &str| keys.get(prefix).is_some_and(|known| known.is_accepted(now));
        stages.retain(|(file, prefix), _| *file != place.name || is_accepted(prefix));
        self.point();
        self.check_replaceable(user, why, seen.as_deref())?;
        let prefix = self.new_key(user, settings, Status::Pending);
        let reload = settings.reload.filter(|_| tells);
        let pending =
            Pending { prefix: prefix.clone(), kept: settings.clone(), grace, tell: reload.is_some() };
        self.world.pending.insert(user.to_owned(), pending);
        self.world.stages.insert((place.name.clone(), prefix.clone()), true);
        self.note("issued", &prefix, None);
        self.point();
        self.put_in_place(place, &prefix)?;
        self.tell(user, &prefix, settings, grace, reload)
    }

    pub(super) fn check_replaceable(&self, user: &str, why: &Why, seen: Option<&str>) -> Done {
        let current = self.active(user);
        match (why, current) {
            (Why::Create | Why::Refresh { first: true, .. }, Some(current)) if self.is_accepted(&current) => {
                Err(KeyExists)
            }
            (Why::Refresh { first: false, .. } | Why::Ensure | Why::Renew { .. }, None) if seen.is_some() => {
                Err(NoKey)
            }
            _ if self.world.pending.contains_key(user) => Err(DeliveryPending),
            _ => Ok(()),
        }
    }

    pub(super) fn put_in_place(&mut self, place: &Place, prefix: &str) -> Done {
        // Who revoked it meanwhile has removed its stage.
        self.world.stages.remove(&(place.name.clone(), prefix.to_owned())).ok_or(NoKey)?;
        let holds = Content::Key { prefix: prefix.to_owned(), env: place.env };
        self.world.files.insert(place.name.clone(), File { holds, mode: place.mode });
        self.point();
        Ok(())
    }

    pub(super) fn tell(
        &mut self,
        user: &str,
        prefix: &str,
        kept: &Kept,
        grace: Ms,
        reload: Option<bool>,
    ) -> Done {
        if let Some(works) = reload {
            self.point();
            match self.world.keys.get(prefix).map(|known| known.status) {
                _ if works || self.is_dry => {}
                Some(Status::Pending) => return Err(DeliveryPending),
                Some(Status::Active) => {}
                _ => return Err(NoKey),
            }
        }
        self.activate(user, prefix, kept, grace)
    }

    pub(super) fn activate(&mut self, user: &str, prefix: &str, settings: &Kept, grace: Ms) -> Done {
        if self.active(user).as_deref() == Some(prefix) {
            return Ok(());
        }
        self.world.keys.get(prefix).filter(|known| known.status == Status::Pending).ok_or(NoKey)?;
        self.retire(user, grace);
        self.world.pending.remove(user);
        let known = self.world.keys.get_mut(prefix).unwrap();
        known.status = Status::Active;
        let created = known.created;
        self.keep(user, settings, created);
        self.note("delivered", prefix, None);
        self.point();
        Ok(())
    }

    /// Takes the current key out of its place.
    pub(super) fn retire(&mut self, user: &str, grace: Ms) {
        let Some(prefix) = self.active(user) else { return };
        let (now, known) = (self.now, self.world.keys.get_mut(&prefix).unwrap());
        if !known.is_accepted(now) {
            known.status = Status::Expired;
            self.note("revoked", &prefix, None);
        } else if grace == 0 {
            (known.status, known.revoked) = (Status::Revoked, Some(now));
            self.note("revoked", &prefix, None);
        } else {
            let until = known.expires.map_or(now + grace, |end| end.min(now + grace));
            (known.status, known.revoked) = (Status::Retiring, Some(until));
            self.note("retired", &prefix, Some(until));
        }
    }

    pub(super) fn new_key(&mut self, user: &str, settings: &Kept, status: Status) -> String {
        let fresh = self.fresh.get_mut(user).and_then(VecDeque::pop_front);
        let prefix = fresh.unwrap_or_else(|| "none was issued".to_owned());
        let known = Known {
            user: user.to_owned(),
            name: settings.name.clone(),
            status,
            created: self.now,
            expires: settings.lifetime.map(|lifetime| self.now + lifetime),
            revoked: None,
            used: None,
        };
        self.world.keys.insert(prefix.clone(), known);
        prefix
    }

    /// Forgets what was to come with a pending key, but where nothing else is kept. Returns where it is staged.
    pub(super) fn forget_pending(&mut self, user: &str) -> Option<(String, String)> {
        let Pending { prefix, kept, .. } = self.world.pending.remove(user)?;
        let staged = (kept.file.as_ref()?.name.clone(), prefix);
        let due = kept.renew_after.and(self.active(user)).map(|_| self.now);
        self.world.kept.entry(user.to_owned()).or_insert((kept, due));
        Some(staged)
    }

    pub(super) fn unstage(&mut self, staged: Option<(String, String)>) {
        staged.map(|staged| self.world.stages.remove(&staged));
        self.point();
    }

    /// A renewal replaces only a key of this user that was delivered there since then.
    pub(super) fn may_replace(&self, user: &str, place: &Place, since: Option<Ms>) -> bool {
        match self.world.files.get(&place.name).map(|file| &file.holds) {
            None | Some(Content::Nothing) => since.is_none(),
            Some(Content::Junk) => false,
            Some(Content::Key { prefix, .. }) => match (self.world.keys.get(prefix), since) {
                (Some(known), None) => known.user == user || !known.is_accepted(self.now),
                (Some(known), Some(since)) => known.user == user && known.created >= since,
                (None, since) => since.is_none(),
            },
        }
    }
}

impl Stands {
    pub fn is_not_over(self) -> bool {
        matches!(self, Stands::AwaitsReload | Stands::Stuck)
    }
}
