//! Whole rollouts with a driver: a real controller, an edge, a node, and an agent that is killed in between.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::image::Image;
use crate::registry;
use rota_tests::Trouble;
use rota_tests::farm::{App, Farm, count};
use rota_tests::processes::Programs;

/// How long systemd may take to forget a unit whose processes are gone.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// Two releases are rolled, a third one is restored; the agent dies in between and the app goes on.
pub fn by_systemd(programs: Programs) -> Result<(), Trouble> {
    let farm = Farm::of(programs, 1)?;
    let unit = || -> Result<String, Trouble> {
        let mut show = Command::new("systemctl");
        show.args(["show", "--property=MainPID,ActiveState,Slice,MemoryMax,Type", "--value"]);
        let shown = show.arg("rota-shop.service").output()?;
        Ok(String::from_utf8(shown.stdout)?.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let run = "driver = \"systemd\"\nlimits = { memory = \"256MiB\" }";
    let farm = roll(farm, run, &unit)?;
    let state = unit()?;
    assert!(state.contains("active") && state.contains("rota-apps.slice"), "{state}");
    assert!(state.contains("268435456"), "its limit: {state}");
    drop(farm);
    // Its processes and its agent are gone now: nobody holds the unit, so systemd forgets it.
    let begun = Instant::now();
    loop {
        let left = Command::new("systemctl").args(["list-units", "--all", "rota-*"]).output()?;
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        if !left.contains("rota-shop") {
            break;
        }
        assert!(begun.elapsed() < FORGOTTEN, "{left}");
    }
    Ok(())
}

/// The same with an image that comes as the artifact; what comes is gone when nothing returns to it.
pub fn by_docker(programs: Programs) -> Result<(), Trouble> {
    let image = Image::make("rota-tests/app", &[&programs.app])?;
    let farm = Farm::of(programs, 1)?;
    let tar = farm.path("image.tar");
    image.save(&tar)?;
    drop(image);
    let container = || -> Result<String, Trouble> {
        let inspect = ["inspect", "--format={{.Id}} {{.Config.Labels}}", "rota-shop"];
        Ok(String::from_utf8(Command::new("docker").args(inspect).output()?.stdout)?)
    };
    let farm = roll(farm, "driver = \"docker\"", &container)?;
    let is = container()?;
    assert!(is.contains("rota.app:shop") && is.contains("rota.version:1.1.0"), "{is}");
    pulled(&farm)?;
    drop(farm);
    let removed = Command::new("docker").args(["rm", "-f", "rota-shop"]).output()?;
    assert!(removed.status.success());
    let all = Command::new("docker").args(["images", "-q", "rota/shop"]).output()?;
    for id in String::from_utf8(all.stdout)?.split_whitespace() {
        Command::new("docker").args(["rmi", "-f", id]).output()?;
    }
    Ok(())
}

/// A release whose image stays in its registry: its tag is looked up once, and every node pulls what it stood for.
fn pulled(farm: &Farm) -> Result<(), Trouble> {
    let registry = registry::serve(&farm.path("image.tar"))?;
    let manifest = manifest(farm, "driver = \"docker\"", &[])?;
    let image = format!("image = \"{registry}/shop:{{version}}\"");
    let text = fs::read_to_string(&manifest)?.replace("path = \"../image.tar\"", &image);
    fs::write(&manifest, text)?;
    let manifest = manifest.to_str().ok_or("no text")?;
    let words = "deploy --version 1.3.0 --env prod --yes --supersede -f";
    let words: Vec<&str> = words.split(' ').chain([manifest]).collect();
    let output = farm.run(&words)?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("nodes pull {registry}/shop@sha256:")), "{said}");
    assert_eq!(page(farm)?, "v1.3.0\n");
    Ok(())
}

/// `is` says what runs the app: it must not change while there is no agent.
pub fn roll(
    mut farm: Farm,
    run: &str,
    is: &dyn Fn() -> Result<String, Trouble>,
) -> Result<Farm, Trouble> {
    deploy(&farm, run, "1.0.0", &[], 0)?;
    assert_eq!(page(&farm)?, "v1.0.0\n");
    let before = is()?;
    farm.nodes[0].kill()?;
    assert_eq!(page(&farm)?, "v1.0.0\n", "the app goes on");
    farm.nodes[0] = farm.start_node(1)?;
    farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == 1)?;
    assert_eq!(is()?, before, "the next agent has found it, not started it");
    deploy(&farm, run, "1.1.0", &[], 0)?;
    assert_eq!(page(&farm)?, "v1.1.0\n");
    assert_ne!(is()?, before);
    let said = deploy(&farm, run, "1.2.0", &["--exit-at-once"], 3)?;
    assert!(said.contains("exited with code 3"), "{said}");
    let shown = farm.run(&["rollout", "status", "shop/prod"])?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(shown.contains("this release finds no database and gives up"), "{shown}");
    assert_eq!(page(&farm)?, "v1.1.0\n", "it is back");
    Ok(farm)
}

fn deploy(
    farm: &Farm,
    run: &str,
    version: &str,
    args: &[&str],
    code: i32,
) -> Result<String, Trouble> {
    let manifest = manifest(farm, run, args)?;
    let manifest = manifest.to_str().ok_or("no text")?;
    let words = ["deploy", "-f", manifest, "--version", version, "--env", "prod", "--yes"];
    let output = farm.run(&words)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said)?;
    assert_eq!(output.status.code(), Some(code), "{said}");
    Ok(said)
}

fn manifest(farm: &Farm, run: &str, args: &[&str]) -> Result<PathBuf, Trouble> {
    let app = App { args, strategy: "monitor = \"0s\"", ..App::default() };
    let path = farm.write_app(app)?;
    let mut text = fs::read_to_string(&path)?.replace("[run]\n", &format!("[run]\n{run}\n"));
    if run.contains("docker") {
        text = text.replace("path = \"dist\"", "path = \"../image.tar\"");
        text = text.replace("\"./sample-app\"", "\"/sample-app\"");
    }
    fs::write(&path, text)?;
    Ok(path)
}

/// What clients get.
fn page(farm: &Farm) -> Result<String, Trouble> {
    let mut stream = TcpStream::connect(farm.pool()?)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").ok_or("no answer")?.1.to_owned())
}
