//! The user an app runs as, from /etc/passwd and /etc/group themselves: a static program has no
//! name service.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Groups that one user may be in; the kernel's limit is 65,536, and nobody has more than a few.
const GROUPS_MAX: usize = 1024;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its home folder.
    pub home: String,
    /// Its numbers.
    pub ids: Ids,
}

/// What the kernel knows of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: Vec<u32>,
}

/// A user that does not exist here, or cannot be looked up.
#[derive(Debug, Error)]
pub enum UserError {
    /// Nobody has that name.
    #[error("there is no user `{name}` in {file}")]
    Unknown { name: String, file: PathBuf },
    /// The list cannot be read.
    #[error("cannot read {file}")]
    Read {
        file: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// The user with this name.
pub fn named(name: &str) -> Result<User, UserError> {
    find(Path::new("/etc"), |user| user.name == name)?
        .ok_or_else(|| UserError::Unknown { name: name.into(), file: "/etc/passwd".into() })
}

/// The user that the agent runs as; one without an entry has its number for a name.
pub fn own() -> Result<User, UserError> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let nameless = || User {
        name: uid.to_string(),
        home: "/".into(),
        ids: Ids { uid, gid, groups: vec![gid] },
    };
    Ok(find(Path::new("/etc"), |user| user.ids.uid == uid)?.unwrap_or_else(nameless))
}

fn find(etc: &Path, wanted: impl Fn(&User) -> bool) -> Result<Option<User>, UserError> {
    let Some(mut user) = read(&etc.join("passwd"))?.lines().filter_map(user).find(wanted) else {
        return Ok(None);
    };
    let groups = read(&etc.join("group"))?;
    let more = groups.lines().filter_map(|line| group_of(line, &user.name));
    let first = user.ids.gid;
    user.ids.groups = std::iter::once(first).chain(more.filter(|gid| *gid != first)).collect();
    user.ids.groups.truncate(GROUPS_MAX);
    Ok(Some(user))
}

fn read(file: &Path) -> Result<String, UserError> {
    match fs::read(file) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        // A container may have neither file.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(cause) => Err(UserError::Read { file: file.into(), cause }),
    }
}

/// `name:password:uid:gid:comment:home:shell`
fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    let home = Some(*fields.get(5)?).filter(|home| !home.is_empty()).unwrap_or("/");
    let ids = Ids { uid, gid, groups: vec![gid] };
    Some(User { name: (*fields.first()?).into(), home: home.into(), ids })
}

/// `name:password:gid:member,member`
fn group_of(line: &str, member: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split(':').collect();
    let gid = fields.get(2)?.parse().ok()?;
    fields.get(3)?.split(',').any(|it| it.trim() == member).then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_their_groups() {
        let etc = tempfile::tempdir().expect("a folder");
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken:x:y\n\
                      shop:x:1001:1002:Shop,,,:/srv/shop:/bin/false\nbare:x:7:8:::\n";
        let group =
            "root:x:0:\nshop:x:1002:\nssl:x:110:www, shop\nadm:x:4:shopper\nagain:x:1002:shop\n";
        fs::write(etc.path().join("passwd"), passwd).expect("writes");
        fs::write(etc.path().join("group"), group).expect("writes");
        let rows = [
            ("root", Some("0 0 [0] /root")),
            ("shop", Some("1001 1002 [1002, 110] /srv/shop")),
            ("bare", Some("7 8 [8] /")),
            ("broken", None),
            ("nobody-here", None),
        ];
        for (name, expected) in rows {
            let found = find(etc.path(), |user| user.name == name).expect("reads").map(|user| {
                let Ids { uid, gid, groups } = user.ids;
                format!("{uid} {gid} {groups:?} {}", user.home)
            });
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_machine_without_the_files_has_no_users() {
        let etc = tempfile::tempdir().expect("a folder");
        assert_eq!(find(etc.path(), |_| true).expect("reads"), None);
        let error = named("no-such-user-here").unwrap_err();
        assert_eq!(error.to_string(), "there is no user `no-such-user-here` in /etc/passwd");
    }
}
