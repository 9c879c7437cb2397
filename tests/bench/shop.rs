//! Two releases of the sample app, and rollouts to and fro between them: what several benches need.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::farm::{ENV, Farm};

/// What the releases are called.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// The releases of one farm.
pub struct Shop {
    manifests: [PathBuf; 2],
    round: usize,
}

/// One rollout, as its command told.
pub struct Rolled {
    /// From the start of the command to its end.
    pub command: Duration,
    /// From when the controller had started the rollout to when it had completed it.
    pub rollout: Duration,
    /// The whole answer.
    pub view: serde_json::Value,
}

impl Shop {
    /// Writes both releases into the farm's folder; nothing is pushed yet.
    pub fn open(farm: &Farm, strategy: &str) -> Result<Self, Trouble> {
        let manifest = |version: &str| -> Result<PathBuf, Trouble> {
            let folder = farm.path(&format!("app-{version}"));
            std::fs::create_dir_all(folder.join("dist"))?;
            std::fs::copy(&farm.programs.app, folder.join("dist/sample-app"))?;
            std::fs::write(folder.join("dist/release"), version)?; // another digest for each
            Ok(folder.join("rota.toml"))
        };
        let shop = Self { manifests: [manifest(VERSIONS[0])?, manifest(VERSIONS[1])?], round: 0 };
        shop.follow(strategy)?;
        Ok(shop)
    }

    /// From now on it is rolled out like this.
    pub fn follow(&self, strategy: &str) -> Result<(), Trouble> {
        for path in &self.manifests {
            std::fs::write(path, format!("{MANIFEST}{strategy}\n"))?;
        }
        Ok(())
    }

    /// The first release is there already: the other one is next.
    pub fn pass(&mut self) {
        self.round += 1;
    }

    /// The arguments that plan the next rollout.
    pub fn planned(&self) -> Vec<String> {
        let at = self.round % VERSIONS.len();
        let file = self.manifests[at].display().to_string();
        ["plan", "--version", VERSIONS[at], "--env", ENV, "-f", &file].map(String::from).to_vec()
    }

    /// Rolls the other release out, and waits until the rollout completed.
    pub fn roll(&mut self, farm: &Farm) -> Result<Rolled, Trouble> {
        let begun = Instant::now();
        let view = self.deploy(farm, &["-o", "json"])?;
        let command = begun.elapsed();
        let view: serde_json::Value = serde_json::from_slice(&view)?;
        Ok(Rolled { command, rollout: took(&view)?, view })
    }

    /// Starts a rollout of the other release, and leaves it alone.
    pub fn start(&mut self, farm: &Farm) -> Result<(), Trouble> {
        self.deploy(farm, &["--detach"]).map(drop)
    }

    fn deploy(&mut self, farm: &Farm, how: &[&str]) -> Result<Vec<u8>, Trouble> {
        let at = self.round % VERSIONS.len();
        self.round += 1;
        let mut command = farm.rota();
        command.args(["deploy", "--version", VERSIONS[at], "--env", ENV]).args(how);
        let output = command.arg("-f").arg(&self.manifests[at]).output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("the rollout to {} did not complete: {said}", VERSIONS[at]).into())
    }
}

/// How long a rollout took, by its controller's clock.
pub fn took(view: &serde_json::Value) -> Result<Duration, Trouble> {
    let moment = |key: &str| -> Result<jiff::Timestamp, Trouble> {
        Ok(view[key].as_str().ok_or("a rollout without its times")?.parse()?)
    };
    Ok(moment("finished_at")?.duration_since(moment("started_at")?).unsigned_abs())
}

const MANIFEST: &str = r#"app = "shop"

[artifact]
path = "dist"

[run]
command = ["./sample-app", "--port", "{port}"]
port = "auto"

[health]
http = "/healthz"

[traffic]
pool = "shop"

[target]
roles = ["web"]

[strategy]
monitor = "0s"
"#;
