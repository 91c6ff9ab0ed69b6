//! File systems that a test mounts for itself. Only root can.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The kernel writes to the image what was synced, and in the first 300 seconds nothing else.
const LOOP: &str = "loop,commit=300";

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A file system that is mounted for as long as this lives.
pub struct Mount {
    path: PathBuf,
    folder: Option<TempDir>,
}

impl Mount {
    fn new(kind: &str, options: &str, source: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().to_owned();
        let mut mount = Mount::at(path, kind, options, source);
        mount.folder = Some(folder);
        mount
    }

    fn at(path: PathBuf, kind: &str, options: &str, source: &Path) -> Self {
        run(Command::new("mount").args(["-t", kind, "-o", options]).arg(source).arg(&path));
        Mount { path, folder: None }
    }

    /// A file system in memory of so many bytes.
    pub fn tmpfs(size: u32) -> Self {
        Mount::new("tmpfs", &format!("size={size},mode=755"), Path::new("tmpfs"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A process that another test is just starting may still have a file of it open.
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// A disk whose power can be cut: an ext4 file system in a file. The kernel writes to that file what
/// was synced, and in the first 300 seconds nothing else.
pub struct Disk {
    pub mount: Mount,
    image: PathBuf,
    _folder: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0"]).arg(&image));
        Disk { mount: Mount::new("ext4", LOOP, &image), image, _folder: folder }
    }

    /// What the disk holds if the power goes now.
    pub fn after_power_cut(&self) -> Disk {
        let (folder, image) = self.copy();
        Disk { mount: Mount::new("ext4", LOOP, &image), image, _folder: folder }
    }

    /// The same, in the same place: until it is dropped it hides this disk.
    pub fn after_power_cut_in_place(&self) -> Disk {
        let (folder, image) = self.copy();
        Disk { mount: Mount::at(self.mount.path.clone(), "ext4", LOOP, &image), image, _folder: folder }
    }

    /// Makes what has been written so far last.
    pub fn sync(&self) {
        run(Command::new("sync").arg("--file-system").arg(self.mount.path()));
    }

    fn copy(&self) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("image");
        run(Command::new("cp").arg("--sparse=always").args([&self.image, &image]));
        (folder, image)
    }
}
