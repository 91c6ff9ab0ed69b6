//! What the drivers know of their users' keys, for those who check.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::random::Random;
use crate::soak::lock;

/// So many ended keys of a user are asked about.
const MOST_ENDED: usize = 40;

#[derive(Default)]
pub struct Board {
    /// Of each user, in the order in which the drivers have them.
    users: Mutex<Vec<Known>>,
    /// The files of daemons whose keys `renew` replaces at any time.
    pub renewed: Mutex<Vec<PathBuf>>,
}

#[derive(Default)]
struct Known {
    /// One more with each change.
    epoch: u64,
    /// None while a command is under way that may end them.
    accepted: Vec<String>,
    /// They have ended for good.
    ended: Vec<String>,
}

/// What is to be asked, and what must be answered.
pub enum Question {
    Accepted { key: String, user: usize, epoch: u64 },
    Ended { key: String },
    InFile { path: PathBuf },
}

impl Board {
    pub fn add(&self) -> usize {
        let mut users = lock(&self.users);
        users.push(Known::default());
        users.len() - 1
    }

    /// From now on it is not known which keys of the user are accepted, but for those that have ended.
    pub fn unsettle(&self, user: usize) {
        let known = &mut lock(&self.users)[user];
        known.epoch += 1;
        known.accepted.clear();
    }

    pub fn settle(&self, user: usize, accepted: Vec<String>) {
        let known = &mut lock(&self.users)[user];
        known.epoch += 1;
        known.accepted = accepted;
    }

    pub fn ended(&self, user: usize, key: String) {
        let known = &mut lock(&self.users)[user];
        known.ended.push(key);
        if known.ended.len() > MOST_ENDED {
            known.ended.remove(0);
        }
    }

    pub fn forget(&self, user: usize) {
        let known = &mut lock(&self.users)[user];
        *known = Known { epoch: known.epoch + 1, ..Known::default() };
    }

    pub fn question(&self, random: &mut Random) -> Option<Question> {
        if random.percent(20) {
            return random.of(&lock(&self.renewed)).map(|path| Question::InFile { path: path.clone() });
        }
        let users = lock(&self.users);
        let user = random.below(users.len().max(1));
        let known = users.get(user)?;
        if random.percent(50) {
            return random.of(&known.ended).map(|key| Question::Ended { key: key.clone() });
        }
        let key = random.of(&known.accepted)?.clone();
        Some(Question::Accepted { key, user, epoch: known.epoch })
    }

    /// Whether nothing has changed for that user since.
    pub fn is_as_it_was(&self, user: usize, epoch: u64) -> bool {
        lock(&self.users)[user].epoch == epoch
    }
}
