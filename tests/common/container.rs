//! A host with systemd, booted in a container. Only root can.

use std::fmt::Debug;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything in it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks for something that is soon to be there, until it is.
#[track_caller]
pub fn wait_for<T: Debug>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Such a host, with the release of the host that the tests run on. It ends when this is dropped.
pub struct Container {
    folder: TempDir,
    nspawn: Child,
    init: Pid,
}

impl Container {
    /// Installs a small system, from where apt has its packages, and boots it.
    pub fn boot() -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("root");
        let (mirror, release) = source_of_packages();
        let mut install = Command::new("debootstrap");
        install.args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus", &release]);
        let output = install.arg(&root).arg(mirror).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

        let console = File::create(folder.path().join("console")).unwrap();
        // It is not to outlive a test that is killed.
        let mut nspawn = Command::new("setpriv");
        nspawn.args(["--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]);
        nspawn.args(["--private-network", "--boot", "--directory"]).arg(root);
        nspawn.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        let nspawn = nspawn.spawn().unwrap();

        let children = format!("/proc/{0}/task/{0}/children", nspawn.id());
        let init = || fs::read_to_string(&children).ok()?.split(' ').next()?.parse().ok();
        let init = Pid::from_raw(wait_for("the container's init", init));
        let container = Container { folder, nspawn, init };
        wait_for("the end of the boot", || {
            let state = container.command(&["systemctl", "is-system-running"]).output().unwrap();
            ["running", "degraded"].contains(&String::from_utf8_lossy(&state.stdout).trim()).then_some(())
        });
        container
    }

    /// Where in this host's tree the container's `path` is: not one in /run or /tmp, which it mounts.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file into it.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Copies a file into it.
    pub fn copy(&self, from: &Path, to: &str) {
        fs::copy(from, self.path(to)).unwrap();
    }

    /// Runs a command in it, as root. Returns its status, and what it wrote to both streams.
    pub fn run(&self, command: &[&str]) -> (i32, String) {
        let output = self.command(command).output().unwrap();
        let written = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(written).unwrap().trim_end().to_owned())
    }

    /// What a command that succeeds wrote.
    #[track_caller]
    pub fn succeeds(&self, command: &[&str]) -> String {
        let (status, written) = self.run(command);
        assert_eq!(status, 0, "{command:?}: {written}");
        written
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut nsenter = Command::new("timeout");
        nsenter.args(["--kill-after=5", &LIMIT.as_secs().to_string()]);
        nsenter.args(["nsenter", "--all", "--target", &self.init.to_string(), "--"]).args(command);
        nsenter.stdin(Stdio::null()).env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        nsenter
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let console = fs::read_to_string(self.folder.path().join("console")).unwrap_or_default();
        if thread::panicking() {
            println!("{console}\n{}", self.run(&["journalctl", "--no-pager", "--boot"]).1);
        }
        let _ = kill(self.init, Signal::SIGKILL);
        let _ = self.nspawn.wait();
    }
}

/// The mirror that apt uses, and the release that is to be had there.
fn source_of_packages() -> (String, String) {
    let about = fs::read_to_string("/etc/os-release").unwrap();
    let field = |name: &str| {
        let value = about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    let (release, distribution) = (field("VERSION_CODENAME"), field("ID"));
    let format = "$(CODENAME) $(COMPONENT) $(ORIGIN) $(REPO_URI)";
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let targets = String::from_utf8(targets.output().unwrap().stdout).unwrap();
    let mirror = targets.lines().find_map(|line| {
        let (archive, uri) = line.rsplit_once(' ')?;
        archive.eq_ignore_ascii_case(&format!("{release} main {distribution}")).then(|| uri.to_owned())
    });
    (mirror.unwrap_or_else(|| panic!("apt has no source of {release}:\n{targets}")), release)
}
