//! The CA, and what it believes of a request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rota_identity::certificate::not_after;
use rota_identity::{Identity, Kind, LEAF_LIFETIME, Leaf, tls};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Ca, CaError};

fn node() -> Identity {
    Identity::new(Kind::Node, "web-01").unwrap()
}

fn leaf(pem: &str) -> Leaf {
    Leaf::parse(&tls::certificates("certificate", pem).unwrap()[0]).unwrap()
}

#[test]
fn of_a_request_only_the_key_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = Ca::create(dir.path(), now).unwrap();
    // Somebody asks for an operator's name, a CA's powers and every purpose.
    let mut greedy = CertificateParams::default();
    let uri = "spiffe://rota/operator/admin".try_into().unwrap();
    greedy.subject_alt_names = vec![SanType::URI(uri)];
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let request = greedy.serialize_request(&key).unwrap().pem().unwrap();
    let issued = ca.issue(&request, &node(), now).unwrap();
    let chain = tls::certificates("certificate", &issued.certificate_pem).unwrap();
    assert_eq!(chain.len(), 2, "the leaf and the CA");
    let (_, parsed) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf(&issued.certificate_pem).identity, node());
    assert_eq!(leaf(&issued.certificate_pem).serial, issued.serial);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth, "a node only calls");
    assert_eq!(parsed.public_key().subject_public_key.data, key.public_key_raw());
}

#[test]
fn lifetimes() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = Ca::create(dir.path(), now).unwrap();
    let end = not_after(&tls::certificates("CA", ca.roots_pem()).unwrap()[0]).unwrap();
    for (what, at, right) in [
        ("now", now, Some(now + LEAF_LIFETIME)),
        ("near the CA's end", end - Duration::from_secs(3600), Some(end)),
        ("after the CA's end", end, None),
    ] {
        match (ca.issue_with_key(&node(), at), right) {
            (Ok((issued, _)), Some(right)) => {
                let off = right.duration_since(leaf(&issued.certificate_pem).not_after);
                assert!(off.unwrap_or_default() < Duration::from_secs(1), "{what}");
                assert!(leaf(&issued.certificate_pem).not_before < at, "{what}: dated back");
            }
            (Err(CaError::Ended), None) => {}
            (got, _) => panic!("{what}: {got:?}"),
        }
    }
}

#[test]
fn requests_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = Ca::create(dir.path(), now).unwrap();
    let good = rota_identity::PrivateKey::generate().unwrap().request().unwrap();
    // One flipped character in the signature at the end.
    let at = good.find("\n-----END").unwrap() - 8;
    let mut forged = good.clone();
    forged.replace_range(at..=at, if &good[at..=at] == "A" { "B" } else { "A" });
    for (request, right) in [
        (String::new(), "can be signed"),
        ("hello".into(), "can be signed"),
        (ca.roots_pem().to_owned(), "can be signed"),
        (forged, "can be signed"),
        ("x".repeat(9000), "longer than 8192 bytes"),
    ] {
        let error = ca.issue(&request, &node(), now).unwrap_err();
        assert!(matches!(error, CaError::Request(_)), "{error:?}");
        assert!(error.to_string().contains(right), "{error}");
    }
    assert!(ca.issue(&good, &node(), now).is_ok());
}

#[test]
fn the_files_of_a_ca() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("ca.pem"), dir.path().join("ca-key.pem"));
    assert!(Ca::open(dir.path()).unwrap().is_none());
    fs::write(&key, "a key that a crash left alone").unwrap();
    let made = Ca::create(dir.path(), SystemTime::now()).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let open = || Ca::open(dir.path());
    assert_eq!(open().unwrap().unwrap().fingerprint(), made.fingerprint());
    assert!(matches!(Ca::create(dir.path(), SystemTime::now()), Err(CaError::Exists(_))));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::remove_file(&key).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("restore it from a backup"), "{error}");
    assert!(cert.exists(), "nothing was touched");
}

#[test]
fn an_operators_own_ca() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("corp.pem"), dir.path().join("corp.key"));
    let make = |is_ca| {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        (params.self_signed(&pair).unwrap().pem(), pair.serialize_pem())
    };
    let good = make(IsCa::Ca(BasicConstraints::Constrained(0)));
    let leaf = make(IsCa::NoCa);
    let other = make(IsCa::Ca(BasicConstraints::Constrained(0)));
    for (cert_pem, key_pem, right) in [
        (&good.0, &good.1, Ok(())),
        (&leaf.0, &leaf.1, Err("is not the certificate of a CA")),
        (&good.0, &other.1, Err("is not the one of the certificate")),
        (&good.1, &good.1, Err("cannot use the CA's certificate")),
        (&good.0, &good.0, Err("cannot use the CA's key")),
    ] {
        fs::write(&cert, cert_pem).unwrap();
        rota_identity::write_private(&key, key_pem.as_bytes()).unwrap();
        match (Ca::load(&cert, &key), right) {
            (Ok(ca), Ok(())) => {
                assert!(ca.issue_with_key(&node(), SystemTime::now()).is_ok());
            }
            (Err(got), Err(right)) => assert!(got.to_string().contains(right), "{got}"),
            (got, right) => panic!("{got:?} instead of {right:?}"),
        }
    }
}
