//! A registry with one image, which wants a token of everybody.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rota_tests::Trouble;
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What it answers, by path.
struct Shelf {
    address: SocketAddr,
    manifest: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
}

/// Serves an archive of `docker save` as `/shop`, whatever the tag, until the process ends.
pub fn serve(archive: &Path) -> Result<SocketAddr, Trouble> {
    let folder = tempfile::tempdir()?;
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(folder.path()).arg("-xf").arg(archive);
    assert!(unpack.status()?.success());
    let list = fs::read(folder.path().join("manifest.json"))?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let mut blobs = BTreeMap::new();
    let mut put = |kind: &str, name: &serde_json::Value| -> Result<serde_json::Value, Trouble> {
        let bytes = fs::read(folder.path().join(name.as_str().ok_or("no name")?))?;
        let (digest, size) = (digest(&bytes), bytes.len());
        blobs.insert(digest.clone(), bytes);
        Ok(serde_json::json!({ "mediaType": kind, "size": size, "digest": digest }))
    };
    let config = put(CONFIG, &list[0]["Config"])?;
    let layers = list[0]["Layers"].as_array().ok_or("no layers")?;
    let layers = layers.iter().map(|layer| put(LAYER, layer)).collect::<Result<Vec<_>, _>>()?;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let shelf = Arc::new(Shelf { address, manifest: serde_json::to_vec(&manifest)?, blobs });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shelf = Arc::clone(&shelf);
            std::thread::spawn(move || {
                if let Err(error) = shelf.answer(&stream) {
                    eprintln!("the registry could not answer: {error}");
                }
            });
        }
    });
    Ok(address)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Shelf {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        // dockerd tries TLS first.
        let Some(Ok(first)) = lines.next() else { return Ok(()) };
        let heads: Vec<String> =
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let mut words = first.split_whitespace();
        let (method, path) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
        let allowed = heads.iter().any(|head| head.eq_ignore_ascii_case("authorization: bearer t"));
        let (status, kind, body) = match path.rsplit_once('/') {
            _ if path.starts_with("/token") => {
                ("200 OK", "application/json", &b"{\"token\":\"t\"}"[..])
            }
            _ if !allowed => ("401 Unauthorized", "text/plain", &b""[..]),
            Some((place, _)) if place.ends_with("/manifests") => {
                ("200 OK", MANIFEST, &self.manifest[..])
            }
            Some((place, name)) if place.ends_with("/blobs") => match self.blobs.get(name) {
                Some(blob) => ("200 OK", "application/octet-stream", &blob[..]),
                None => ("404 Not Found", "text/plain", &b""[..]),
            },
            Some(_) | None => ("200 OK", "text/plain", &b""[..]),
        };
        let mut writer = stream;
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"r\"", self.address);
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             docker-content-digest: {}\r\nwww-authenticate: {challenge}\r\n\
             connection: close\r\n\r\n",
            body.len(),
            digest(body),
        );
        writer.write_all(head.as_bytes())?;
        if method != "HEAD" {
            writer.write_all(body)?;
        }
        Ok(())
    }
}
