//! How this folder's records lie in the store: JSON with their version, and times that people can
//! read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_rollout::names::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Entry, StoreError};

/// The version of all records here.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// A record as bytes.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Versioned { v: VERSION, record })
        .map_err(|error| StoreError::Corrupt(format!("a new record: {error}")))
}

/// The record of an entry.
pub(super) fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt(format!("{}: {why}", entry.key));
    let found: Versioned<T> =
        serde_json::from_slice(&entry.value).map_err(|error| corrupt(error.to_string()))?;
    if found.v == VERSION {
        Ok(found.record)
    } else {
        Err(corrupt(format!("its version is {}, this program knows {VERSION}", found.v)))
    }
}

/// A time of the core, from one of the system.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A time of the system, from one of the core.
pub fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

/// RFC 3339, UTC, milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    let known =
        i64::try_from(time.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    known.map_or_else(|| "9999-12-31T23:59:59.999Z".to_owned(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_carry_their_version() {
        let entry =
            |value: &str| Entry { key: "/x".into(), value: value.into(), created: 1, modified: 1 };
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Record {
            a: u32,
        }
        let bytes = encode(&Record { a: 7 }).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"v":1,"a":7}"#);
        for (value, right) in [
            (r#"{"v":1,"a":7}"#, Ok(Record { a: 7 })),
            (r#"{"v":2,"a":7}"#, Err("its version is 2")),
            (r#"{"a":7}"#, Err("missing field `v`")),
            ("", Err("EOF")),
        ] {
            match (decode::<Record>(&entry(value)), right) {
                (Ok(got), Ok(right)) => assert_eq!(got, right),
                (Err(got), Err(right)) => assert!(got.to_string().contains(right), "{got}"),
                (got, right) => panic!("{value}: {got:?} instead of {right:?}"),
            }
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(Timestamp(1_700_000_000_120)), "2023-11-14T22:13:20.120Z");
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(timestamp(system_time(Timestamp(12_345))), Timestamp(12_345));
    }
}
