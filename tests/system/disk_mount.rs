//! A small file system of its own, mounted by the test and unmounted when it is dropped, whatever
//! the test came to.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// 24 MiB: smaller than two segments and their headroom.
const MIB: usize = 24;

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tmpfs,
    /// In a file, over a loop device.
    Ext4,
}

/// A mounted file system.
pub(crate) struct Mount {
    kind: Kind,
    /// Holds the image and the mount point.
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Mount {
    /// Makes and mounts one.
    ///
    /// # Errors
    /// It is not permitted here; the text says what was tried.
    pub(crate) fn new(kind: Kind) -> Result<Self, String> {
        let mut mount = Self {
            kind,
            folder: tempfile::tempdir().unwrap(),
            mounted: false,
        };
        fs::create_dir(mount.path()).unwrap();
        if kind == Kind::Ext4 {
            let image = File::create(mount.image()).unwrap();
            image.set_len((MIB << 20) as u64).unwrap();
            run(Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0"])
                .arg(mount.image()))?;
        }
        mount.mount()?;
        Ok(mount)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&mut self) -> Result<(), String> {
        let mut command = Command::new("mount");
        match self.kind {
            Kind::Tmpfs => command
                .args([
                    "-t",
                    "tmpfs",
                    "-o",
                    &format!("size={MIB}m"),
                    "tidegate-test",
                ])
                .arg(self.path()),
            Kind::Ext4 => command
                .args(["-o", "loop,errors=remount-ro"])
                .arg(self.image())
                .arg(self.path()),
        };
        run(&mut command)?;
        self.mounted = true;
        Ok(())
    }

    /// Takes all the room that is left. The stranger leaves when what is given back is dropped.
    pub(crate) fn fill(&self) -> Stranger {
        let stranger = Stranger(self.path().join("stranger"));
        let mut file = File::create(&stranger.0).unwrap();
        for bytes in [64 * 1024, 4096, 512] {
            while file.write_all(&vec![b'x'; bytes]).is_ok() {}
        }
        // Where blocks are given out late, only this one tells.
        let _ = file.sync_all();
        stranger
    }

    /// Makes the kernel believe that it found an error: from now on the file system is read-only.
    ///
    /// # Errors
    /// There is no such switch here.
    pub(crate) fn break_down(&self) -> Result<(), String> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let path = self.path();
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let device = lines.find_map(|mut words| {
            let device = words.next()?;
            (Path::new(words.next()?) == path).then_some(device)
        });
        let device = device.ok_or("it is not in /proc/mounts")?;
        let name = device.trim_start_matches("/dev/");
        let switch = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(&switch, "test").map_err(|error| format!("{switch}: {error}"))?;
        let probe = self.path().join("probe");
        match File::create(&probe) {
            Err(_) => Ok(()),
            Ok(_) => Err(format!("{switch} did not make it read-only")),
        }
    }

    /// Unmounts it, repairs it and mounts it again. Nobody may have a file of it open.
    pub(crate) fn repair(&mut self) {
        self.unmount();
        // 1 says: repaired.
        let status = Command::new("e2fsck")
            .args(["-p", "-f"])
            .arg(self.image())
            .output()
            .unwrap();
        assert!(
            status.status.code().is_some_and(|code| code <= 1),
            "{status:?}"
        );
        self.mount().unwrap();
    }

    fn unmount(&mut self) {
        let start = Instant::now();
        while self.mounted {
            let tried = run(Command::new("umount").arg(self.path()));
            self.mounted = tried.is_err();
            if self.mounted && start.elapsed() > Duration::from_secs(10) {
                // Whoever still has a file open keeps it; nobody sees it any more.
                let _ = run(Command::new("umount").arg("-l").arg(self.path()));
                self.mounted = false;
            }
            if self.mounted {
                sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A file that is not ours and takes all the room.
pub(crate) struct Stranger(PathBuf);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
