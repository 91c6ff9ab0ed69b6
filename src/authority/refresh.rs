//! Replacing a user's key.

use std::time::Duration;

use super::Recipient;
use super::issue::{Issue, Issued, Order, Replace, check_none_waits};
use super::revoke::{check_agreed, revoke};
use crate::delivery::{Delivery, tell_and_activate};
use crate::error::{Code, Error, Result};
use crate::key::{Prefix, listed};
use crate::settings::{Change, Changes, Reload, Settings};
use crate::store::{Pending, Record, Turn};
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

/// What [`Authority::refresh`](super::Authority::refresh) does.
pub(super) fn refresh(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    refresh: &Refresh,
    recipient: &mut dyn Recipient,
) -> Result<Issued> {
    let Refresh { order: Order { user, changes }, .. } = refresh;
    let agreed = refresh.agreed.as_deref();
    let reload = match &changes.reload {
        Change::Set(reload) => Some(reload),
        Change::Keep | Change::TakeAway => None,
    };
    if let Some(waiting) = waiting.filter(|waiting| refresh.is_met_by(waiting)) {
        return finish(turn, waiting.pending.clone(), agreed, reload, recipient);
    }
    let kept = turn.read(|snapshot| snapshot.settings(user))?;
    // Of what ends here, the settings that were on their way are the newest. Whose the file is depends on
    // how far that was.
    let newest = waiting.map_or(&kept, |waiting| &waiting.pending.settings);
    let settings = changes.of(newest.clone());
    let owner = |settings: &Settings| settings.key_file.as_ref().and_then(|key_file| key_file.owner);
    if reload.is_some() && settings.key_file.is_none() {
        return Err(Error::new(Code::Usage, "there is no key file whose reader could be told")
            .hint("--reload goes with --key-file, or with a key that went to one before"));
    }
    let mut issue = Issue {
        command: "refresh",
        user,
        settings: &settings,
        previous_owners: [owner(&kept), owner(newest)],
        reload,
        replace: Replace::Current { grace: refresh.grace.unwrap_or_default(), agreed },
        revoked_first: Vec::new(),
        ended: None,
    };
    if !refresh.revoke_first {
        check_none_waits(waiting)?;
        return issue.go(turn, recipient);
    }
    if settings.key_file.is_none() {
        // What is known to reach nobody ends nothing.
        recipient.check(&turn.store().location().files())?;
    }
    issue.replace = Replace::Nothing;
    issue.ended = turn.read(|snapshot| snapshot.current(user))?;
    issue.revoked_first = revoke_all(turn, waiting, user, agreed)?;
    issue.go(turn, recipient).map_err(|error| match issue.revoked_first.as_slice() {
        [] => error,
        ended => error.after(&format!("{} of {user} ended", listed(ended.iter().map(|key| key.prefix)))),
    })
}

fn revoke_all(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    user: &User,
    agreed: Option<&[Prefix]>,
) -> Result<Vec<Record>> {
    match revoke(turn, waiting, user, agreed) {
        Err(error) if error.code() == Code::NoKey => Ok(Vec::new()),
        revoked => revoked,
    }
}

/// Goes on with a key that was delivered and whose reader was not told.
fn finish(
    turn: &mut Turn<'_>,
    mut waiting: Pending,
    agreed: Option<&[Prefix]>,
    reload: Option<&Reload>,
    recipient: &dyn Recipient,
) -> Result<Issued> {
    let current = turn.read(|snapshot| snapshot.current(&waiting.key.user))?;
    current.iter().try_for_each(|current| check_agreed(current, agreed))?;
    // How it is told this time is what is kept, not how it was told in vain.
    waiting.settings.reload = reload.cloned();
    let (record, previous) = tell_and_activate(turn, &waiting, reload, recipient.reload_stderr())?;
    let key_file = Some(waiting.key_file);
    Ok(Issued { record, key_file, previous, revoked_first: Vec::new(), was_waiting: true })
}

impl Refresh {
    /// Whether `waiting`, which was delivered and waits for its reader to be told, is what it asks for.
    fn is_met_by(&self, waiting: &Delivery) -> bool {
        let Pending { settings, grace, .. } = &waiting.pending;
        let Changes { name, lifetime, key_file, reload } = &self.order.changes;
        waiting.is_in_place()
            && !self.revoke_first
            // Whether its reader is told is for the caller to say.
            && *reload != Change::Keep
            && name.is_met_by(settings.name.as_ref())
            && lifetime.is_met_by(settings.lifetime.as_ref())
            && key_file.is_met_by(settings.key_file.as_ref())
            && self.grace.is_none_or(|asked| asked == *grace)
    }
}
