//! Replacing a user's key.

use std::time::Duration;

use super::issue::{Issue, Issued, Order, Replace, check_none_waits};
use super::revoke::{check_agreed, revoke};
use super::{Recipient, Shortfall};
use crate::delivery::{Delivery, End, Replaces, tell_and_activate};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::key_file::Owner;
use crate::settings::{Change, Reload, Settings};
use crate::store::{Held, Pending, Record, Store, Turn};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// How to replace a user's key.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// The next key.
    pub order: Order,
    /// How long the old one is still accepted, but not past its own expiry; not at all, where there is
    /// none.
    pub grace: Option<Duration>,
    /// Whether all that the user has ends before the next key is issued, in a transaction of its own,
    /// so that for a moment there is none.
    pub revoke_first: bool,
    /// The keys that somebody was asked about: if another would end too, nothing is done.
    pub agreed: Option<Vec<Prefix>>,
}

/// Which command replaces a key, and on whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody's, who says how long the old key is accepted.
    Refresh,
    /// Somebody's, who wants a key in the file, and else what is kept.
    Ensure,
    /// Nobody's: what is kept. Without a current key there is none to renew, but where a pending one, which was
    /// issued then and was all that the user had, was `superseded`.
    Renew { superseded: Option<Timestamp> },
}

impl Kind {
    fn command(self) -> &'static str {
        match self {
            Kind::Refresh => "refresh",
            Kind::Ensure => "ensure",
            Kind::Renew { .. } => "renew",
        }
    }
}

/// What was revoked before the next key is issued.
#[derive(Default)]
pub(super) struct Ended {
    pub keys: Vec<Held>,
    /// What was not done of that.
    pub shortfall: Shortfall,
    /// Whose the file may be in which the last of them was.
    pub owners: [Option<Owner>; 2],
}

/// Revokes all that the user has, before anything else is done.
pub(super) fn revoke_first(
    store: &mut Store,
    clock: fn() -> Result<Timestamp>,
    refresh: &Refresh,
    recipient: &dyn Recipient,
) -> Result<Ended> {
    let Order { user, changes } = &refresh.order;
    let known = store.read_beside_writers(clock()?, |snapshot| {
        let kept = snapshot.settings(user)?;
        let newest = snapshot.pending_of(user)?.map_or_else(|| kept.clone(), |pending| pending.settings);
        Ok::<_, Error>((kept, newest))
    });
    let mut owners = [None; 2];
    // What cannot be read is no reason not to revoke.
    if let Ok((kept, newest)) = known {
        owners = [owner(&kept), owner(&newest)];
        if changes.of(newest)?.key_file.is_none() {
            // What is known to reach nobody ends nothing.
            recipient.check(&store.location().files())?;
        }
    }
    let agreed = refresh.agreed.as_deref();
    let revoked = revoke(store, clock, &Subject::User(user.clone()), agreed)?;
    Ok(Ended { keys: revoked.keys, shortfall: revoked.shortfall, owners })
}

/// What [`Authority::refresh`](super::Authority::refresh) does, when what was to be revoked first has `ended`.
pub(super) fn refresh(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    refresh: &Refresh,
    kind: Kind,
    ended: Ended,
    recipient: &mut dyn Recipient,
) -> Result<Issued> {
    let Order { user, changes } = &refresh.order;
    let agreed = refresh.agreed.as_deref();
    let in_place = waiting.filter(|waiting| waiting.is_in_place() && !refresh.revoke_first);
    if let Some(pending) = in_place.map(|waiting| &waiting.pending)
        && let Some(settings) = refresh.settings_met_by(pending)?
    {
        return finish(turn, Pending { settings, ..pending.clone() }, refresh, recipient);
    }
    check_none_waits(turn, waiting)?;
    let (kept, current) = turn.read(|snapshot| Ok((snapshot.settings(user)?, snapshot.current(user)?)))?;
    let settings = changes.of(kept.clone())?;
    let is_first = is_first(&kept, current.as_ref()) && ended.keys.is_empty();
    let tell_by = settings.reload.as_ref().filter(|_| !is_first);
    if let Some(reload) = tell_by {
        check_may_run(reload, &refresh.order, turn.store())?;
    }
    let seen = current.as_ref().map(|current| current.prefix);
    let [one, other] = ended.owners;
    let issue = Issue {
        command: kind.command(),
        user,
        settings: &settings,
        kept_key_file: kept.key_file.as_ref(),
        previous_owners: [owner(&kept).or(one), other],
        replaces: match kind {
            Kind::Renew { superseded } => {
                // A revocation waits for no turn: it may have come since the key was found due.
                let since = current.as_ref().map(|current| current.created_at).or(superseded);
                Replaces::OwnKeySince(since.ok_or_else(|| was_revoked(user))?)
            }
            Kind::Refresh | Kind::Ensure => may_replace(&refresh.order, &settings, turn.store())?,
        },
        tell_by,
        replace: match kind {
            Kind::Refresh if refresh.revoke_first => Replace::Nothing,
            Kind::Refresh => Replace::Current { grace: refresh.grace.unwrap_or_default(), agreed, seen },
            Kind::Ensure | Kind::Renew { .. } => {
                Replace::Current { grace: settings.renew_grace(), agreed, seen }
            }
        },
        revoked_first: ended.keys,
        shortfall: ended.shortfall,
    };
    issue.go(turn, recipient)
}

/// Goes on with a key that was delivered and whose reader was not told.
fn finish(
    turn: &mut Turn<'_>,
    waiting: Pending,
    refresh: &Refresh,
    recipient: &dyn Recipient,
) -> Result<Issued> {
    let (user, agreed) = (&waiting.key.user, refresh.agreed.as_deref());
    let current = turn.read(|snapshot| snapshot.current(user))?;
    current.iter().try_for_each(|current| check_agreed(user, &Held::from(current), agreed))?;
    let tell_by = waiting.settings.reload.as_ref();
    if let Some(reload) = tell_by {
        check_may_run(reload, &refresh.order, turn.store())?;
    }
    let (replaced, stderr) = (current.map(|current| current.prefix), recipient.reload_stderr());
    let activated = tell_and_activate(turn, &waiting, replaced, tell_by, stderr)?;
    let issued = Issued::new(activated, Some(waiting.key_file), &waiting.settings);
    Ok(Issued { was_waiting: true, ..issued })
}

/// Whether a user with these settings and this current key has none to tell of the next one: there is no
/// reader yet, and nothing that ends.
pub(super) fn is_first(kept: &Settings, current: Option<&Record>) -> bool {
    kept.key_file.is_none() && current.is_none()
}

/// What the key that is ordered may take the place of, in its file.
pub(super) fn may_replace(order: &Order, settings: &Settings, store: &Store) -> Result<Replaces> {
    let is_kept = order.changes.key_file == Change::Keep && settings.key_file.is_some();
    Ok(if is_kept && store.location().is_shared()? { Replaces::AKey } else { Replaces::Anything })
}

impl Refresh {
    /// One that keeps all that the order does not change, the renewal grace too.
    pub(super) fn as_kept(order: Order) -> Self {
        Refresh { order, grace: None, revoke_first: false, agreed: None }
    }

    /// Checks that `pending`, whose reader is to be told, is what this asks for, and that it can be told.
    pub(super) fn check_met_by(&self, pending: &Pending, store: &Store, now: Timestamp) -> Result<()> {
        let Some(settings) = self.settings_met_by(pending)? else {
            return Err(Delivery::of(pending, End::AwaitsReload(None)).error(store, now));
        };
        settings.reload.map_or(Ok(()), |reload| check_may_run(&reload, &self.order, store))
    }

    /// The settings of `pending`, which was delivered and waits for its reader to be told, where it is what
    /// this asks for. How its reader is told is as it is said now.
    fn settings_met_by(&self, pending: &Pending) -> Result<Option<Settings>> {
        let changes = &self.order.changes;
        let settings = changes.of(pending.settings.clone())?;
        let but_for_reload = |settings: &Settings| Settings { reload: None, ..settings.clone() };
        // Not to tell it at all is for somebody to say.
        let says_how = settings.reload.is_some() || changes.reload == Change::TakeAway;
        let is_met = says_how
            && but_for_reload(&settings) == but_for_reload(&pending.settings)
            && self.grace.is_none_or(|asked| asked == pending.grace);
        Ok(is_met.then_some(settings))
    }
}

/// Checks that a reload command is the caller's word: said now, or kept where nobody else could have said
/// it, and not in a copy of the database of another machine.
pub(super) fn check_may_run(reload: &Reload, order: &Order, store: &Store) -> Result<()> {
    let is_kept = order.changes.reload == Change::Keep;
    let (user, location) = (&order.user, store.location());
    let not_run = |code, why: &str| {
        Error::new(code, format!("the reload command that is kept for {user} is not run: {why}"))
            .hint("say it again with --reload, or do without it with --no-reload")
    };
    if is_kept && location.is_shared()? {
        let why = format!("others may write {}", location.path().display());
        return Err(not_run(Code::Forbidden, &why));
    }
    if is_kept && !reload.is_of_this_machine() {
        return Err(not_run(Code::Usage, "it was not set on this machine"));
    }
    Ok(())
}

fn was_revoked(user: &User) -> Error {
    Error::new(Code::NoKey, format!("the key of {user} was revoked meanwhile, so none was issued"))
        .hint(format!("`apikey refresh {user}` issues one all the same"))
}

fn owner(settings: &Settings) -> Option<Owner> {
    settings.key_file.as_ref().and_then(|key_file| key_file.owner)
}
