//! An image made of this host's own programs: no registry is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rota_tests::Trouble;

/// What the behaviours' lines of `sh` use.
const PROGRAMS: [&str; 8] = ["sh", "cat", "env", "id", "setsid", "sleep", "tr", "wc"];

/// An image in this host's dockerd, which is removed when it is dropped.
pub struct Image {
    /// What it is called.
    pub name: String,
}

impl Image {
    /// Makes one with a shell, and with these programs at its root; or says why there can be none here.
    pub fn make(name: &str, programs: &[&Path]) -> Result<Image, Trouble> {
        let version = Command::new("docker").args(["version"]).output();
        let version = version.map_err(|error| format!("there is no `docker` here ({error})"))?;
        if !version.status.success() {
            return Err("dockerd does not answer".into());
        }
        let root = tempfile::tempdir()?;
        let bin = root.path().join("bin");
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(root.path().join("etc"))?;
        let users = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
        fs::write(root.path().join("etc/passwd"), users)?;
        for name in PROGRAMS {
            put(root.path(), &fs::canonicalize(found(name)?)?, &bin.join(name))?;
        }
        for program in programs {
            let name = program.file_name().ok_or("no name")?;
            put(root.path(), program, &root.path().join(name))?;
        }
        let name = format!("{name}:{}", std::process::id());
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped());
        let mut tar = tar.spawn()?;
        let packed = tar.stdout.take().ok_or("no pipe")?;
        let import = Command::new("docker").args(["import", "-", &name]).stdin(packed).output()?;
        tar.wait()?;
        match import.status.success() {
            true => Ok(Image { name }),
            false => Err(String::from_utf8_lossy(&import.stderr).into_owned().into()),
        }
    }

    /// Starts a container of it, or says why this host cannot: a dockerd that answers may still lack what that takes.
    pub fn start(&self) -> Result<(), Trouble> {
        let run = ["run", "--rm", "--network", "host", &self.name, "sh", "-c", ":"];
        let ran = Command::new("docker").args(run).output()?;
        match ran.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&ran.stderr).into_owned().into()),
        }
    }

    /// As `docker save` writes it.
    pub fn save(&self, to: &Path) -> Result<(), Trouble> {
        let saved = Command::new("docker").args(["save", &self.name, "-o"]).arg(to).status()?;
        if saved.success() { Ok(()) } else { Err("docker save failed".into()) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut remove = Command::new("docker");
        remove.args(["rmi", "-f", &self.name]).stdout(Stdio::null()).stderr(Stdio::null());
        if remove.status().is_err() {
            eprintln!("{} is not removed", self.name);
        }
    }
}

fn found(program: &str) -> Result<PathBuf, Trouble> {
    let places = ["/bin", "/usr/bin"].map(|place| Path::new(place).join(program));
    let found = places.into_iter().find(|path| path.exists());
    Ok(found.ok_or_else(|| format!("there is no {program} here"))?)
}

/// Copies a program and the libraries that it needs.
fn put(root: &Path, program: &Path, to: &Path) -> Result<(), Trouble> {
    fs::copy(program, to)?;
    let needs = Command::new("ldd").arg(program).output()?;
    let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
    for library in needs.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().ok_or("no folder")?)?;
        fs::copy(library, place)?;
    }
    Ok(())
}
