//! What is there of a user's key and key file, what should be, and what is to be done for it.

use super::issue::is_pending;
use super::refresh::{Refresh, check_may_run, is_first, may_replace};
use super::show::shown;
use super::{Done, Order, Settled};
use crate::delivery::{Delivery, End, InFile, State, check_is_not_the_database, check_may_replace, look};
use crate::error::{Code, Error, Result};
use crate::key_file::{Differs, Holding, KeyFile, Target};
use crate::settings::Settings;
use crate::store::{Held, Holdings, Pending, Record, Snapshot, Status, Store, Turn, later};
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;
use crate::user::User;

/// What is there, once a delivery that an earlier run left has come to its end; and what should be.
pub(super) struct Plan {
    pub kept: Settings,
    pub settings: Settings,
    pub current: Option<Record>,
    /// When the current key is to end.
    pub expires_at: Option<Timestamp>,
    older: Vec<Held>,
    /// A key on its way of which nothing else can be read: it is in the way of another, and of nothing else.
    pending: Option<Held>,
    /// From when on the current key is renewed, as things are kept.
    due_at: Option<Timestamp>,
    /// The current key is still on its way.
    delivers: bool,
    /// One that was on its way is given up.
    pub undoes: bool,
    /// The file for which the current key is staged, and not in its place yet.
    staged: Option<KeyFile>,
    pub needs_key: bool,
    /// The key file, open, where it holds the current key in its form, or will when that is in place.
    pub file: Option<(Target, Holding)>,
}

impl Plan {
    pub fn make(store: &Store, order: &Order, now: Timestamp) -> Result<Self> {
        match Plan::make_now(store, order, now) {
            // A key that was on its way was ended by another run while its delivery was looked at.
            Err(error) if error.code() == Code::NoKey => Plan::make_now(store, order, now),
            plan => plan,
        }
    }

    fn make_now(store: &Store, order: &Order, now: Timestamp) -> Result<Self> {
        let Order { user, changes } = order;
        let (mut plan, pending) = store.read_beside_writers(now, |snapshot| {
            let plan = Plan::read(snapshot, user)?;
            let pending = if plan.pending.is_some() { snapshot.pending_of(user)? } else { None };
            Ok::<_, Error>((plan, pending))
        })?;
        if let Some(pending) = pending {
            plan = plan.after(pending, store, order, now)?;
        }
        plan.settings = changes.of(plan.kept.clone())?;
        let key_file = key_file_of(&plan.settings, user)?.clone();
        plan.file = match (&plan.staged, &plan.current) {
            (Some(staged), Some(current)) if staged.path() == key_file.path() => {
                let target = Target::open(&key_file, [staged.owner, None]).map_err(undeliverable)?;
                let holding = target.holding_in_stage(current.prefix, &current.key_hash);
                holding.map_err(undeliverable)?.map(|holding| (target, holding))
            }
            _ => {
                let file = plan.look_at(store, user, &key_file, now)?;
                if let Err(held) = &file {
                    may_replace(order, &plan.settings, store)?
                        .check(store, &key_file, user, held)
                        .map_err(undeliverable)?;
                }
                file.ok()
            }
        };
        plan.needs_key = match &plan.current {
            None => true,
            Some(current) => {
                if plan.settings.lifetime != plan.kept.lifetime {
                    let end = |lifetime| later(current.created_at, lifetime);
                    plan.expires_at = plan.settings.lifetime.map(end).transpose()?;
                }
                // What is kept may say earlier, after a delivery that was given up.
                let as_kept = plan.due_at.filter(|_| plan.settings.renew_after == plan.kept.renew_after);
                let ends = [plan.expires_at, plan.settings.due_at(current.created_at), as_kept];
                let is_over = ends.into_iter().flatten().any(|end| end <= now);
                is_over || plan.file.is_none()
            }
        };
        if let Some(pending) = plan.pending.filter(|_| plan.needs_key) {
            return Err(is_pending(user, &pending));
        }
        let tells = plan.needs_key && !is_first(&plan.kept, plan.current.as_ref());
        if let Some(reload) = plan.settings.reload.as_ref().filter(|_| tells) {
            check_may_run(reload, order, store)?;
        }
        Ok(plan)
    }

    pub fn read(snapshot: &Snapshot<'_>, user: &User) -> Result<Self> {
        let (kept, due_at) = snapshot.settings_and_due(user)?;
        let current = snapshot.current(user)?;
        let Holdings { pending, older, .. } = snapshot.holdings(user)?;
        Ok(Plan {
            settings: kept.clone(),
            kept,
            expires_at: current.as_ref().and_then(|current| current.expires_at),
            current,
            pending,
            older,
            due_at,
            delivers: false,
            undoes: false,
            needs_key: false,
            file: None,
            staged: None,
        })
    }

    /// As it stands when what becomes of `pending` has become of it: what `delivery` and its transactions do, and
    /// then a refresh that tells its reader. Fails where it can neither be finished nor is given up.
    fn after(mut self, pending: Pending, store: &Store, order: &Order, now: Timestamp) -> Result<Self> {
        self.pending = None;
        match look(store, &pending, now)? {
            State::Lost(_) => {
                if self.kept == Settings::default() {
                    self.kept = pending.settings;
                }
                let is_renewed = self.kept.renew_after.is_some() && self.current.is_some();
                let due_at = is_renewed.then(|| self.due_at.map_or(now, |due_at| due_at.min(now)));
                return Ok(Plan { undoes: true, due_at, ..self });
            }
            State::Stuck(obstacle) => {
                return Err(Delivery::of(&pending, End::Stuck(obstacle.reason)).error(store, now));
            }
            State::InPlace(_) | State::AwaitsReload(_) => {}
            State::Staged(_) => self.staged = Some(pending.key_file.clone()),
        }
        if pending.reload_pending {
            Refresh::as_kept(order.clone()).check_met_by(&pending, store, now)?;
        }
        let Pending { key, settings, grace, .. } = pending;
        let old = self.current.filter(|old| old.status.is_accepted() && !grace.is_zero());
        if let Some(old) = old {
            let (status, until) = (Status::Retiring, later(now, grace)?);
            let revoked_at = Some(old.expires_at.map_or(until, |end| end.min(until)));
            self.older.push(Held { status, stored: status, revoked_at, ..Held::from(&old) });
        }
        self.due_at = settings.due_at(key.created_at);
        self.expires_at = key.expires_at;
        self.current = Some(Record { status: Status::Active, stored: Status::Active, ..key });
        Ok(Plan { kept: settings, delivers: true, ..self })
    }

    /// The key file, where it holds the current key in its form, or else what it holds. Fails where a key of the
    /// user may not take the place of that.
    pub fn look_at(
        &self,
        store: &Store,
        user: &User,
        key_file: &KeyFile,
        now: Timestamp,
    ) -> Result<std::result::Result<(Target, Holding), InFile>> {
        let kept_owner = self.kept.key_file.as_ref().and_then(|kept| kept.owner);
        let look = || {
            let target = Target::open(key_file, [kept_owner, None])?;
            check_is_not_the_database(store.location(), &target)?;
            let current = self.current.as_ref();
            let holding = current.map(|current| target.holding(&current.key_hash)).transpose()?.flatten();
            match holding {
                Some(holding) => Ok(Ok((target, holding))),
                None => check_may_replace(store, &target, user, now).map(Err),
            }
        };
        look().map_err(undeliverable)
    }

    fn differs(&self) -> Differs {
        self.file.as_ref().map(|(target, holding)| target.differs(holding)).unwrap_or_default()
    }

    /// What of what is kept, and of the key, is to be changed.
    fn what_changes(&self) -> Vec<&'static str> {
        let (kept, settings) = (&self.kept, &self.settings);
        let current = self.current.as_ref();
        let (was, is) = (kept.key_file.as_ref(), settings.key_file.as_ref());
        let has_another_name = |current: &Record| current.name != settings.name;
        let changes = [
            ("name", kept.name != settings.name || current.is_some_and(has_another_name)),
            ("end", self.expires_at != current.and_then(|current| current.expires_at)),
            ("lifetime", kept.lifetime != settings.lifetime),
            ("key file", was.map(KeyFile::path) != is.map(KeyFile::path)),
            ("owner", was.map(|file| file.owner) != is.map(|file| file.owner)),
            ("mode", was.map(|file| file.mode) != is.map(|file| file.mode)),
            ("format", was.map(|file| &file.env) != is.map(|file| &file.env)),
            ("reload", kept.reload != settings.reload),
            ("renewal", (kept.renew_after, kept.renew_grace) != (settings.renew_after, settings.renew_grace)),
        ];
        changes.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect()
    }

    /// What is to be done.
    pub fn done(&self) -> Vec<Done> {
        let differs = self.differs();
        let changes = !self.what_changes().is_empty();
        let done = [
            (Done::Delivered, self.delivers),
            (Done::Created, self.current.is_none()),
            (Done::Refreshed, self.current.is_some() && self.needs_key),
            (Done::Owner, differs.owner && !self.needs_key),
            (Done::Mode, differs.mode && !self.needs_key),
            (Done::Settings, changes && self.current.is_some()),
        ];
        done.into_iter().filter_map(|(done, is_to_be)| is_to_be.then_some(done)).collect()
    }

    pub fn settled(self, done: Vec<Done>) -> Settled {
        let shown = self.current.map(|current| shown(current, self.kept, self.due_at));
        Settled { shown, done, still_accepted: self.older, ..Settled::default() }
    }

    /// Changes what is kept, and owner and mode of the file: with no new key. Whether more could read the file
    /// until now than should.
    pub fn carry_out(&self, turn: &mut Turn<'_>) -> Result<bool> {
        let differs = self.differs();
        let amended = self.file.as_ref().filter(|_| differs.owner || differs.mode);
        if let Some((target, holding)) = amended {
            target.amend(holding).map_err(undeliverable)?;
        }
        let after_that = |error: Error| match amended {
            Some((target, _)) => {
                error.after(&format!("owner and mode of {} were put right", target.path().display()))
            }
            None => error,
        };
        let changes = self.what_changes();
        if let Some(current) = self.current.as_ref().filter(|_| !changes.is_empty()) {
            let edited = turn.write(|transaction| {
                // A revocation waits for no turn.
                let found = transaction.current(&current.user)?;
                if found.is_none_or(|found| found.prefix != current.prefix) {
                    let message = format!("{} of {} was revoked meanwhile", current.prefix, current.user);
                    return Err(Error::new(Code::NoKey, message)
                        .hint(format!("`apikey create {}` issues another", current.user)));
                }
                transaction.edit(current, self.expires_at, &self.settings, &changes.join(", "))
            });
            edited.map_err(after_that)?;
        }
        Ok(differs.was_open)
    }
}

impl Settled {
    /// What an ensure would do where there is no database at `place` yet, if that is there itself. Fails where the
    /// order does not fit together.
    #[cfg(feature = "cli")]
    pub(crate) fn to_be_created(order: &Order, place: Option<&crate::store::Location>) -> Result<Self> {
        let settings = order.changes.of(Settings::default())?;
        let key_file = key_file_of(&settings, &order.user)?;
        let check = || {
            let target = Target::open(key_file, [None; 2])?;
            place.map_or(Ok(()), |place| check_is_not_the_database(place, &target))?;
            target.check_replaceable()
        };
        check().map_err(undeliverable)?;
        Ok(Settled { done: vec![Done::Created], ..Settled::default() })
    }
}

pub(super) fn key_file_of<'a>(settings: &'a Settings, user: &User) -> Result<&'a KeyFile> {
    settings.key_file.as_ref().ok_or_else(|| {
        Error::new(Code::Usage, format!("there is no key file that {user}'s key could be in"))
            .hint("name it with --key-file")
    })
}

pub(super) fn undeliverable(obstacle: Obstacle) -> Error {
    Error::new(Code::Undeliverable, obstacle.reason).hint(obstacle.hint)
}
