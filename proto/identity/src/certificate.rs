//! What else a certificate says: its number, its lifetime, its fingerprint.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::{BadIdentity, Identity};

/// How long a leaf is valid: long enough to survive a holiday without a controller, short enough
/// that a stolen key ends by itself.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far a new certificate is dated back, because hosts' clocks differ by minutes.
pub const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// When a certificate should be renewed: at two thirds of its life, so that a third is left to
/// retry.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    match not_after.duration_since(not_before) {
        Ok(life) => not_before + life / 3 * 2,
        Err(_) => not_before, // it ends before it begins: due at once
    }
}

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its holder.
    pub identity: Identity,
    /// Its number at its CA: hexadecimal, lower case, no leading zero bytes.
    pub serial: String,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a certificate.
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, BadIdentity> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| BadIdentity::NotACertificate)?;
        Ok(Self {
            identity: Identity::from_x509(&parsed)?,
            serial: serial_text(parsed.raw_serial()),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
        })
    }

    /// When it is due for renewal.
    pub fn renew_at(&self) -> SystemTime {
        renew_at(self.not_before, self.not_after)
    }
}

/// The end of a certificate that need not be a leaf of ours: a CA's.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, BadIdentity> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| BadIdentity::NotACertificate)?;
    Ok(time(parsed.validity().not_after.timestamp()))
}

/// A serial number as text: the same for the bytes that were asked for and those that DER made of
/// them.
pub fn serial_text(bytes: &[u8]) -> String {
    let begin = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    hex(&bytes[begin..])
}

fn time(unix: i64) -> SystemTime {
    match u64::try_from(unix) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH, // before 1970: as old as it gets
    }
}

/// SHA-256 of a certificate, which a token carries to authenticate the first connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha256(certificate))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<Self, NotHex> {
        unhex(text).map(Self)
    }
}

/// A text is not the hexadecimal digits that were expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the expected number of hexadecimal digits")]
pub struct NotHex;

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, data).as_ref());
    out
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            unreachable!("a String takes all text");
        }
        text
    })
}

/// Exactly N bytes of lower-case hexadecimal.
pub fn unhex<const N: usize>(text: &str) -> Result<[u8; N], NotHex> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(NotHex),
    };
    if text.len() != 2 * N {
        return Err(NotHex);
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (from, to, due) in [(0, 30, 20), (100, 130, 120), (100, 100, 100), (100, 50, 100)] {
            assert_eq!(renew_at(at(from), at(to)), at(due), "{from} to {to}");
        }
    }

    #[test]
    fn serials_have_one_text() {
        for (bytes, text) in [
            (&[0x00, 0xff, 0x01][..], "ff01"),
            (&[0xff, 0x01], "ff01"),
            (&[0x00, 0x00], ""),
            (&[0x0a], "0a"),
        ] {
            assert_eq!(serial_text(bytes), text);
        }
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(unhex::<2>("00ff"), Ok([0, 255]));
        for text in ["00f", "00fff", "00FF", "00fg", "0ä0"] {
            assert_eq!(unhex::<2>(text), Err(NotHex), "{text}");
        }
    }
}
