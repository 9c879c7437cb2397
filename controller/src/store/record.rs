//! Records as the store keeps them: JSON objects that say their version first, `{"v":1,…}`,
//! readable in `sqlite3`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Entry, Store, StoreError, StoreRevision};

/// Keys that [`scan_all`] reads at once: a page of a few hundred KB, well below what a message to
/// etcd may carry.
const SCAN_PAGE: usize = 500;

/// Something that is kept under a key. Fields that may be overlooked, and lost where an older version writes the
/// record, need no new number: give them a serde default. What must not be overlooked does, in the values that use it.
pub trait Record: Serialize + DeserializeOwned {
    /// The newest version that is read.
    const VERSION: u32 = 1;

    /// The oldest version that understands this value: it is written with the value, so that whoever is older does not
    /// read it. Values that use nothing new stay what they were.
    fn version(&self) -> u32 {
        Self::VERSION
    }

    /// The value for the store.
    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let refuse = |why: String| {
            let name = std::any::type_name::<Self>();
            StoreError::Corrupt(format!("cannot write a {name} as a record: {why}"))
        };
        let plain = serde_json::to_vec(self).map_err(|cause| refuse(cause.to_string()))?;
        let Some(fields) = plain.strip_prefix(b"{") else {
            return Err(refuse("it is not an object".to_owned()));
        };
        let mut value = format!("{{\"v\":{}", self.version()).into_bytes();
        if fields != b"}" {
            value.push(b',');
        }
        value.extend_from_slice(fields);
        Ok(value)
    }

    /// What the store holds under a key.
    fn decode(entry: &Entry) -> Result<Self, StoreError> {
        let refuse = |why: String| StoreError::Corrupt(format!("{}: {why}", entry.key));
        let v = match version(&entry.value) {
            Some(v) => v,
            None => {
                let head: Head = serde_json::from_slice(&entry.value)
                    .map_err(|cause| refuse(format!("it has no version: {cause}")))?;
                head.v
            }
        };
        if v == 0 || v > Self::VERSION {
            let known = Self::VERSION;
            return Err(refuse(format!(
                "it has version {v} and this program knows {known}; a newer `rota serve` wrote it"
            )));
        }
        serde_json::from_slice(&entry.value).map_err(|cause| {
            let by = match cause.is_data() {
                true => "; perhaps a newer `rota serve` wrote it",
                false => "",
            };
            refuse(format!("{cause}{by}"))
        })
    }
}

#[derive(Deserialize)]
struct Head {
    v: u32,
}

/// The version where we write it: at the beginning. To look there saves reading a record twice, and lists of a large
/// fleet are thousands of records.
fn version(value: &[u8]) -> Option<u32> {
    let rest = value.strip_prefix(b"{\"v\":")?;
    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// Everything under `prefix`, page by page, and the revision of the first page: what changed while
/// the others were read is told by a watch from there, so apply only changes that are newer than
/// the entry.
pub async fn scan_all(
    store: &dyn Store,
    prefix: &str,
) -> Result<(Vec<Entry>, StoreRevision), StoreError> {
    let (mut all, revision) = store.scan(prefix, "", SCAN_PAGE).await?;
    let mut last = all.len();
    while last == SCAN_PAGE {
        let after = all.last().map(|entry| entry.key.clone()).unwrap_or_default();
        let (page, _) = store.scan(prefix, &after, SCAN_PAGE).await?;
        last = page.len();
        all.extend(page);
    }
    Ok((all, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Node {
        name: String,
    }
    impl Record for Node {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing {}
    impl Record for Nothing {
        const VERSION: u32 = 3;
    }

    /// Since version 2 it may be locked, which must not be overlooked.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Door {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        locked: bool,
    }
    impl Record for Door {
        const VERSION: u32 = 2;

        fn version(&self) -> u32 {
            if self.locked { 2 } else { 1 }
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Number(u32);
    impl Record for Number {}

    fn entry(value: &str) -> Entry {
        let key = "/nodes/web-01".to_owned();
        Entry { key, value: value.as_bytes().to_vec(), created: 1, modified: 1 }
    }

    #[test]
    fn the_version_comes_first() {
        let node = Node { name: "web-01".to_owned() };
        assert_eq!(node.encode().unwrap(), br#"{"v":1,"name":"web-01"}"#);
        assert_eq!(Nothing {}.encode().unwrap(), br#"{"v":3}"#);
        assert!(Number(1).encode().is_err(), "not an object");
        assert_eq!(Node::decode(&entry(r#"{"v":1,"name":"web-01"}"#)).unwrap(), node);
        assert_eq!(Nothing::decode(&entry(r#"{"v":2}"#)).unwrap(), Nothing {});
    }

    #[test]
    fn only_what_is_new_is_written_anew() {
        for (locked, value) in [(false, r#"{"v":1}"#), (true, r#"{"v":2,"locked":true}"#)] {
            assert_eq!(Door { locked }.encode().unwrap(), value.as_bytes());
            assert_eq!(Door::decode(&entry(value)).unwrap(), Door { locked });
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (value, why) in [
            (r#"{"v":2,"name":"web-01"}"#, "it has version 2 and this program knows 1"),
            (r#"{"v":0,"name":"web-01"}"#, "it has version 0"),
            (r#"{"name":"web-01","v":2}"#, "it has version 2"),
            (r#"{"v":1,"name":"web-0"#, "EOF while parsing"),
            (r#"{"name":"web-01"}"#, "it has no version"),
            (r#"{"v":1}"#, "missing field `name`"),
            (r#"{"v":1,"name":7}"#, "; perhaps a newer `rota serve` wrote it"),
            ("", "it has no version"),
            ("\0", "it has no version"),
        ] {
            let told = Node::decode(&entry(value)).unwrap_err().to_string();
            assert!(told.contains("/nodes/web-01: ") && told.contains(why), "{value:?}: {told}");
        }
    }
}
