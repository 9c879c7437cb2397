//! An etcd that lets in only whom it knows: TLS with certificates of both sides, and a user with a password who may
//! touch nothing but the prefix.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rota::store::etcd::EtcdStore;
use rota::store::{Op, Outcome, Store, Txn};
use rota_tests::etcd::{Access, Etcd};

use crate::writers::put;

/// Certificates in files, as an operator has them.
struct Files(PathBuf);

impl Files {
    fn make(dir: &Path) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "etcd's CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
        for (name, host) in [("server", "127.0.0.1"), ("client", "rota")] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            let cert = params.signed_by(&key, &ca).unwrap();
            fs::write(dir.join(format!("{name}.pem")), cert.pem()).unwrap();
            secret(&dir.join(format!("{name}-key.pem")), &key.serialize_pem());
        }
        Self(dir.to_owned())
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn server(&self) -> Access {
        let args = [
            ("cert-file", self.file("server.pem")),
            ("key-file", self.file("server-key.pem")),
            ("trusted-ca-file", self.file("ca.pem")),
            ("client-cert-auth", "true".to_owned()),
        ];
        let args = args.map(|(flag, value)| format!("--{flag}={value}")).into();
        Access { tls: true, args, ..Access::default() }
    }

    fn options(&self) -> String {
        let files = ["ca.pem", "client.pem", "client-key.pem"].map(|name| self.file(name));
        format!("ca={}&cert={}&key={}", files[0], files[1], files[2])
    }
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |three: &[u8]| {
        let bits = three.iter().chain(&[0, 0]).take(3).fold(0, |n, b| n << 8 | usize::from(*b));
        let letter = |n: usize| match n <= three.len() {
            true => char::from(LETTERS[bits >> (18 - 6 * n) & 63]),
            false => '=',
        };
        (0..4).map(letter).collect::<String>()
    };
    text.as_bytes().chunks(3).map(encode).collect()
}

/// As docs/etcd.md tells an operator to do with `etcdctl`.
fn add_user(etcd: &Etcd) {
    let (from, to) = (base64("/rota/"), base64("/rota0"));
    etcd.post("auth/user/add", r#"{"name":"root","password":"top secret"}"#);
    etcd.post("auth/user/grant", r#"{"user":"root","role":"root"}"#);
    etcd.post("auth/user/add", r#"{"name":"rota","password":"s3cret&more"}"#);
    etcd.post("auth/role/add", r#"{"name":"rota"}"#);
    let permission = format!(r#"{{"permType":2,"key":"{from}","range_end":"{to}"}}"#);
    etcd.post("auth/role/grant", &format!(r#"{{"name":"rota","perm":{permission}}}"#));
    etcd.post("auth/user/grant", r#"{"user":"rota","role":"rota"}"#);
    etcd.post("auth/enable", "{}");
}

async fn refusal(url: &str) -> String {
    match url.parse() {
        Ok(config) => EtcdStore::open(config).await.map(|_| ()).unwrap_err().to_string(),
        Err(why) => why,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_a_password_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path());
    let Some(mut etcd) = Etcd::start_with(1, &files.server()) else { return };
    let (url, tls) = (etcd.url(), files.options());
    let open = EtcdStore::open(format!("{url}?{tls}").parse().unwrap()).await.unwrap();
    put(&*open, "/before").await;
    drop(open);

    add_user(&etcd);
    let password = dir.path().join("password");
    secret(&password, "s3cret&more\n");
    let user = format!("user=rota&password-file={}", password.display());
    let store = EtcdStore::open(format!("{url}?{tls}&{user}").parse().unwrap()).await.unwrap();
    assert!(store.get("/before").await.unwrap().is_some());
    let mut watch = store.watch("/", put(&*store, "/a").await).await.unwrap();
    let large = (0..20).map(|n| Op::put(format!("/n/{n}"), vec![b'x'; 100_000])).collect();
    let done = store.commit(Txn { compares: vec![], ops: large }).await.unwrap();
    assert!(matches!(done, Outcome::Done(_)), "the user may stage, too");
    let lease = store.grant(std::time::Duration::from_secs(60)).await.unwrap();
    let op = Op::Put { key: "/l".to_owned(), value: vec![], lease: Some(lease) };
    store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    assert!(store.keep_alive(lease).await.unwrap());
    store.revoke(lease).await.unwrap();
    for _ in 0..22 {
        watch.recv().await.unwrap();
    }

    // A member that starts again has forgotten its tokens.
    etcd.restart(0);
    etcd.wait_ready();
    put(&*store, "/after").await;
    assert!(watch.recv().await.is_some(), "the watch has a new token, too");

    let wrong = dir.path().join("wrong");
    secret(&wrong, "guess");
    let open_to_all = dir.path().join("open");
    fs::write(&open_to_all, "s3cret").unwrap();
    let missing = dir.path().join("missing");
    for (options, right) in [
        (format!("{tls}&user=rota&password-file={}", wrong.display()), "password is wrong"),
        (format!("{tls}&user=rota&password-file={}", open_to_all.display()), "chmod 600"),
        (format!("{tls}&user=rota&password-file={}", missing.display()), "No such file"),
        (tls.clone(), "the common name"),
        (format!("{tls}&{user}&prefix=/other"), "readwrite on every key"),
        (String::new(), "may ask for TLS"),
        (format!("ca={}", files.file("ca.pem")), "may ask for a certificate"),
        (format!("ca={}", files.file("client.pem")), "certificate"),
        (format!("ca={}", files.file("client-key.pem")), "no certificate in the CA"),
    ] {
        let told = refusal(&format!("{url}?{options}")).await;
        assert!(told.contains(right), "{options}: {told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    // Without TLS: the other port of this member.
    let plain = refusal(&format!("{}?{tls}", etcd.plain_url())).await;
    assert!(plain.contains("has no TLS there"), "{plain}");
}

/// A member that closed connections and then answers nothing: the last try has nothing to tell, the ones before have.
#[tokio::test]
async fn what_one_try_was_told_outlives_silence() {
    let member = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("etcd://{}", member.local_addr().unwrap());
    let serve = async {
        drop(member.accept().await);
        let mut held = vec![];
        loop {
            held.push(member.accept().await);
        }
    };
    let told = tokio::select! {
        told = refusal(&url) => told,
        () = serve => unreachable!("it serves for ever"),
    };
    assert!(told.contains("may ask for TLS"), "{told}");
}
