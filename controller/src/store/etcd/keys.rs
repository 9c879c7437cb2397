//! Where keys lie in etcd: callers' keys below the prefix, and beside them what is staged, which callers never see.

use super::StoreError;

/// Where parts of large transactions wait; see [`super::staged`].
const STAGED: &str = "/staged/";

/// The first key after those that begin with [`STAGED`].
const AFTER_STAGED: &str = "/staged0";

/// A range of etcd's keys: the first, and the first that is not part of it any more.
pub(super) type Range = (Vec<u8>, Vec<u8>);

/// Translates between the keys of callers and those of etcd.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The key as etcd has it.
    pub(super) fn stored(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The key as callers know it.
    pub(super) fn shown(&self, stored: &[u8]) -> Result<String, StoreError> {
        let key = stored.strip_prefix(self.prefix.as_bytes());
        let text = key.and_then(|key| std::str::from_utf8(key).ok());
        text.map(str::to_owned).ok_or_else(|| {
            let key = String::from_utf8_lossy(stored);
            StoreError::Corrupt(format!("{key}: this key is not one of ours: remove it from etcd"))
        })
    }

    /// Bytes that the prefix adds to each key.
    pub(super) fn added(&self) -> usize {
        self.prefix.len()
    }

    /// A key that is never put, to ask etcd for its revision.
    pub(super) fn nothing(&self) -> Vec<u8> {
        self.stored("/")
    }

    /// What is staged: all of it, or that of one transaction.
    pub(super) fn staged(&self, of: &str) -> Range {
        let start = self.stored(&format!("{STAGED}{of}"));
        (start.clone(), after(start))
    }

    /// The `n`-th part of a staged transaction.
    pub(super) fn part(&self, of: &str, n: usize) -> Vec<u8> {
        self.stored(&format!("{STAGED}{of}{n:06}"))
    }

    /// Is this etcd's key of something staged?
    pub(super) fn is_staged(&self, stored: &[u8]) -> bool {
        let key = stored.strip_prefix(self.prefix.as_bytes());
        key.is_some_and(|key| key.starts_with(STAGED.as_bytes()))
    }

    /// Everything under a prefix, for a watch; `None`: no key begins like that.
    pub(super) fn under(&self, prefix: &str) -> Option<Range> {
        let prefix = if prefix.is_empty() { "/" } else { prefix };
        let ours = prefix.starts_with('/') && !prefix.starts_with(STAGED);
        ours.then(|| {
            let start = self.stored(prefix);
            (start.clone(), after(start))
        })
    }

    /// What callers see under a prefix and after a key, in order; around what is staged.
    pub(super) fn visible(&self, prefix: &str, last: &str) -> Vec<Range> {
        let Some((mut start, end)) = self.under(prefix) else { return Vec::new() };
        if !last.is_empty() {
            let mut next = self.stored(last);
            next.push(0);
            start = start.max(next);
        }
        let (hidden, shown_again) = (self.stored(STAGED), self.stored(AFTER_STAGED));
        let before = (start.clone(), end.clone().min(hidden));
        let behind = (start.max(shown_again), end);
        [before, behind].into_iter().filter(|(start, end)| start < end).collect()
    }
}

/// The first key that does not begin with `prefix` any more.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        // Keys are UTF-8, which has no byte 255.
        *last = last.saturating_add(1);
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ranges: Vec<Range>) -> Vec<String> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', "+");
        ranges.into_iter().map(|(start, end)| format!("{} {}", text(start), text(end))).collect()
    }

    #[test]
    fn callers_see_around_what_is_staged() {
        let keys = Keys::new("/rota");
        for (prefix, last, ranges) in [
            ("", "", &["/rota/ /rota/staged/", "/rota/staged0 /rota0"][..]),
            ("/", "/s", &["/rota/s+ /rota/staged/", "/rota/staged0 /rota0"]),
            ("/", "/t", &["/rota/t+ /rota0"]),
            ("/a/", "", &["/rota/a/ /rota/a0"]),
            ("/a/", "/a/1", &["/rota/a/1+ /rota/a0"]),
            ("/a/", "/b", &[]),
            ("/a/", "/Z", &["/rota/a/ /rota/a0"]),
            ("/stag", "", &["/rota/stag /rota/staged/", "/rota/staged0 /rota/stah"]),
            ("/staged/", "", &[]),
            ("a", "", &[]),
        ] {
            assert_eq!(shown(keys.visible(prefix, last)), ranges, "{prefix:?} {last:?}");
        }
    }

    #[test]
    fn there_and_back() {
        let keys = Keys::new("/rota");
        assert_eq!(keys.stored("/é"), "/rota/é".as_bytes());
        assert_eq!(keys.shown("/rota/é".as_bytes()).unwrap(), "/é");
        assert!(keys.shown(b"/rota/\xff").is_err());
        assert!(keys.shown(b"/other").is_err());
        assert!(keys.is_staged(&keys.part("1a/", 3)));
        assert!(!keys.is_staged(b"/rota/stage"));
    }
}
