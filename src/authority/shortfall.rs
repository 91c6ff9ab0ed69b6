//! What damage, or a full disk, keeps a revocation from doing.

/// What damage, or a disk that is full, kept a revocation from doing: nothing, as a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortfall {
    /// The keys could only be made to expire now: a clock that goes back would bring them to life.
    pub by_time: bool,
    /// And as keys that expired they may be renewed, where the user has a renewal age.
    pub still_renewed: bool,
    /// It is not in the log.
    pub not_logged: bool,
    /// Another key of the user, which cannot be read, is as it was.
    pub left_out: bool,
}

impl Shortfall {
    /// How the keys ended that were found.
    pub(super) fn how_ended(&self) -> String {
        let how = match (self.by_time, self.still_renewed) {
            (false, _) => "ended",
            (true, false) => "could only be made to expire (revoke them again)",
            (true, true) => {
                "could only be made to expire (revoke them again: until then they may be renewed)"
            }
        };
        let rest = if self.left_out { " (another one, which cannot be read, did not)" } else { "" };
        format!("{how}{rest}")
    }
}
