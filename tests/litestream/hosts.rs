//! Hosts with Litestream, as the README sets them up.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::README;
use crate::common::container::wait_for;
use crate::common::{APIKEY, Host};

/// What the README's unit says for `name`, on this host and with this storage.
fn unit(unit: &str, name: &str, host: &Host, storage: &Path) -> Vec<String> {
    let start = format!("```ini\n# /etc/systemd/system/{unit}\n");
    let text = README.split(start.as_str()).nth(1).unwrap().split("```").next().unwrap();
    let said = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    said.map(|line| here(line, host, storage)).collect()
}

/// What the README says for its hosts and storage, for these.
fn here(text: &str, host: &Host, storage: &Path) -> String {
    text.replace("/var/lib/apikey", host.folder().to_str().unwrap())
        .replace("s3://example/keys", &format!("file://{}", storage.display()))
        .replace("/usr/local/bin/litestream", "litestream")
}

/// Litestream, until it is dropped.
#[derive(Debug)]
pub struct Litestream(Child);

impl Litestream {
    /// As systemd starts the README's unit, and starts it again.
    pub fn start(name: &str, host: &Host, storage: &Path) -> Self {
        wait_for("Litestream", || Self::try_to_start(name, host, storage))
    }

    fn try_to_start(name: &str, host: &Host, storage: &Path) -> Option<Self> {
        let said = |key| unit(name, key, host, storage);
        let umask = said("UMask").concat();
        let shell = |line: &str| {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("umask {umask}; {line}"));
            shell
        };
        let runs = |line: String| shell(&line).status().unwrap().success();
        assert!(said("ExecStartPre").into_iter().all(runs));
        let log = File::options().create(true).append(true).open(storage.with_extension("log")).unwrap();
        let mut litestream = shell(&format!("exec {}", said("ExecStart").concat()));
        let litestream = litestream.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let id = litestream.id().to_string();
        let mut litestream = Litestream(litestream);
        let is_done = said("ExecStartPost").into_iter().all(|line| {
            let mut after = shell(&line).env("MAINPID", &id).stderr(Stdio::null()).spawn().unwrap();
            loop {
                // `kill -0` takes one that has ended and that nobody waits for to be there.
                let _ = litestream.0.try_wait();
                if let Some(status) = after.try_wait().unwrap() {
                    return status.success();
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        is_done.then_some(litestream)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Ends as systemd ends it.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Litestream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority that is replicated, where its changes are copied to, and a host that follows.
pub struct Hosts {
    pub authority: Host,
    pub replica: Host,
    pub storage: TempDir,
}

impl Hosts {
    pub fn new() -> Self {
        Hosts { authority: Host::new(), replica: Host::new(), storage: TempDir::new().unwrap() }
    }

    pub fn replicate(&self) -> Litestream {
        Litestream::start("apikey-replicate.service", &self.authority, &self.storage.path().join("keys"))
    }

    pub fn follow(&self) -> Litestream {
        Litestream::start("apikey-follow.service", &self.replica, &self.storage.path().join("keys"))
    }

    /// Waits until the replica says of every key what the authority says.
    pub fn agree(&self) {
        let list = |host: &Host| host.apikey(&["list", "--all", "--json"]).run();
        wait_for("the replica to agree", || {
            let (here, there) = (list(&self.authority), list(&self.replica));
            (there.status == 0 && here.stdout == there.stdout).then_some(())
        });
    }

    /// The authority on a new host, as the README restores it.
    pub fn restore(&self) -> Host {
        let host = Host::new();
        let block = README.split("```sh\n").find(|block| block.contains("litestream restore -o")).unwrap();
        let lines = block.split("```").next().unwrap().lines();
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with("systemctl")).collect();
        let script = here(&lines.join("\n"), &host, &self.storage.path().join("keys"));
        let mut shell = Command::new("sh");
        let program = Path::new(APIKEY).parent().unwrap();
        shell.args(["-euc", &format!("PATH=$PATH:{}\n{script}", program.display())]);
        let restored = shell.env("APIKEY_DB", host.database()).output().unwrap();
        assert!(restored.status.success(), "{script}: {restored:?}");
        host
    }
}
