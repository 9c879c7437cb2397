//! `rota deploy`, `rota plan`, `rota check`: from a manifest on this machine to a rollout.

use std::path::{Path, PathBuf};

use clap::Args;
use rota_proto::operator::{Kind, PushRequest, StartRequest};
use rota_rollout::names::{AppName, EnvName, Version};
use serde::Deserialize;

use super::content::{self, Content};
use super::desk::Desk;
use super::manifest::{self, Source};
use super::outcome::{Exit, Failure};
use super::starting::{self, ReplaceArgs, StartingArgs};
use super::talk::{self, Format};
use super::{checked, files, render, upload, words};
use crate::artifact;
use crate::client::Client;
use crate::manifest::Artifact;
use crate::view::{PlanView, ReleaseView};

/// Push a release, start a rollout of it, and follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rota deploy --version 1.1.0 --env prod -m \"faster search\"\n  \
    rota deploy -f shop/rota.toml --version 1.1.0 --env prod --detach\n  \
    rota deploy --version 1.1.1 --env prod --supersede --yes -o json\n\n\
    Exit codes: 0 completed; 3 held, failed, aborted, paused or partial; 4 rolled back.\n\n\
    Ctrl-C detaches (130); it never stops a rollout.")]
pub struct DeployArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Go back although a release's fence forbids it; takes -m
    #[arg(long, requires = "message")]
    break_fence: bool,
    #[command(flatten)]
    replace: ReplaceArgs,
    #[command(flatten)]
    start: StartingArgs,
}

/// Show what a rollout would do: batches, capacity, time, what changes, what would stop it; changes nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota plan --version 1.1.0 --env prod\n  \
    rota plan -f shop/rota.toml --version 1.1.0 --env prod -o json\n  \
    rota plan shop --release 1.1.0 --env prod\n  \
    rota plan shop --undo --env prod\n  \
    rota plan shop --undo --to-revision 12 --env prod\n\n\
    Exit code 1 when it would be refused.")]
pub struct PlanArgs {
    /// An app whose release was pushed before, with --release or --undo
    app: Option<AppName>,
    /// The manifest
    #[arg(short, long, default_value = "rota.toml", conflicts_with = "app")]
    file: PathBuf,
    /// The app's version, with a manifest
    // Named here one by one: clap asks for no argument that a conflict forbids.
    #[arg(long, required_unless_present = "app")]
    #[arg(conflicts_with_all = ["app", "release", "undo", "to_revision"])]
    version: Option<Version>,
    /// As `rota rollout start`: the release that was pushed
    #[arg(long, value_name = "VERSION", requires = "app", conflicts_with = "undo")]
    release: Option<Version>,
    /// As `rota rollout undo`
    #[arg(long, requires = "app")]
    undo: bool,
    /// To this revision; default: the last completed one before the current
    #[arg(long, value_name = "N", requires = "undo")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    to_revision: Option<u64>,
    /// The environment
    #[arg(long)]
    env: EnvName,
    /// What would be done if a fence that forbids it were broken
    #[arg(long)]
    break_fence: bool,
}

/// What is deployed where.
#[derive(Debug, Args)]
pub struct WhatArgs {
    /// The manifest
    #[arg(short, long, default_value = "rota.toml")]
    file: PathBuf,
    /// The app's version
    #[arg(long)]
    version: Version,
    /// The environment
    #[arg(long)]
    env: EnvName,
}

/// Check a manifest offline, and show what it says in each environment
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota check\n  rota check -f shop/rota.toml -o json")]
pub struct CheckArgs {
    /// The manifest
    #[arg(short, long, default_value = "rota.toml")]
    file: PathBuf,
}

/// Carries out `rota check`.
pub fn check(desk: &Desk, args: &CheckArgs) -> Result<Exit, Failure> {
    let source = manifest::read(desk, &args.file)?;
    // What is only known when a version is chosen cannot be looked for.
    if let Artifact::Path(path) = &source.manifest.base().artifact
        && !path.contains('{')
    {
        artifact::check(path, &source.dir).map_err(|error| content::not_packed(&source, &error))?;
    }
    match desk.talk.format {
        Format::Table => desk.talk.screen(&checked::text(&source.manifest))?,
        Format::Json => desk.talk.data(&checked::json(&source.manifest)?)?,
    }
    desk.talk.say(&format!("{} can be used", source.name));
    Ok(Exit::Done)
}

/// Carries out `rota plan`.
pub async fn plan(desk: &Desk, args: PlanArgs) -> Result<Exit, Failure> {
    let env = args.env.clone();
    let mut content = None;
    let (app, request) = match (args.app, args.version) {
        (Some(app), _) => {
            let (kind, release) = match (args.undo, args.release) {
                (true, _) => (Kind::Undo, String::new()),
                (false, Some(release)) => (Kind::Deploy, release.to_string()),
                (false, None) => {
                    let message = format!("which release of {app}?");
                    return Err(Failure::usage(message).hint("write `--release V` or `--undo`"));
                }
            };
            let request = StartRequest {
                app: app.to_string(),
                env: env.to_string(),
                release,
                kind: kind.into(),
                to_revision: args.to_revision.unwrap_or(0),
                break_fence: args.break_fence,
                ..StartRequest::default()
            };
            (app, request)
        }
        (None, Some(version)) => {
            let source = manifest::read(desk, &args.file)?;
            source.fits(desk, &version)?;
            let made = content.insert(Content::of(desk, &source, &version).await?);
            let request = StartRequest {
                digest: made.digest().to_owned(),
                break_fence: args.break_fence,
                ..start_request(&source, &version, &env)
            };
            (source.manifest.base().app.clone(), request)
        }
        (None, None) => return Err(Failure::usage("no version is named").hint("`--version V`")),
    };
    let json = desk.client()?.plan(request).await?;
    let mut plan: PlanView = talk::parse(&json)?;
    plan.files = files::different(desk, &app, &plan, content.as_ref()).await?;
    match desk.talk.format {
        Format::Table => desk.talk.screen(&render::plan(&plan, &desk.talk.page()))?,
        Format::Json => {
            let json = serde_json::to_string(&plan);
            let json = json.map_err(|error| Failure::internal("cannot print the plan", &error))?;
            desk.talk.data(&talk::pretty(&json)?)?;
        }
    }
    let Some(first) = plan.refusals.first() else { return Ok(Exit::Done) };
    let to = format!("{app} {} would be refused in {env}", plan.to);
    let more = plan.refusals.len() - 1;
    let hint = match more {
        0 => "nothing was changed; plan again when that is cleared".to_owned(),
        more => format!("nothing was changed; {more} more in the way, all of them in the plan"),
    };
    Err(Failure::new("refused", format!("{to}: {}", words::clean(first))).hint(hint))
}

/// Carries out `rota deploy`.
pub async fn deploy(desk: &Desk, args: DeployArgs) -> Result<Exit, Failure> {
    let WhatArgs { file, version, env } = args.what;
    let source = manifest::read(desk, &file)?;
    source.fits(desk, &version)?;
    let app = source.manifest.base().app.clone();
    args.replace.ask(desk, &app, &env).await?;
    let content = Content::of(desk, &source, &version).await?;
    let request = StartRequest {
        message: args.start.message,
        supersede: args.replace.supersede,
        break_glass: args.start.glass.break_glass,
        break_fence: args.break_fence,
        ..start_request(&source, &version, &env)
    };
    may_start(desk, &content, &request).await?;
    push_content(desk, &source, &version, &content).await?;
    starting::start(desk, request, &args.start.follow).await
}

/// Would it be refused? Asked before anything is sent, so that a refusal changes nothing.
async fn may_start(desk: &Desk, content: &Content, request: &StartRequest) -> Result<(), Failure> {
    let mut client = desk.client()?;
    // Whoever may not push is told so here: a plan is for everybody who sees the environment.
    client.upload_state(content.digest()).await?;
    let asked = StartRequest { digest: content.digest().to_owned(), ..request.clone() };
    let plan: PlanView = talk::parse(&client.plan(asked).await?)?;
    let Some((first, rest)) = plan.refusals.split_first() else {
        if let Some(warning) = render::warning(&plan, &desk.talk.side_page()) {
            desk.talk.say(&warning);
        }
        return Ok(());
    };
    let rest = rest.iter().map(|refusal| words::clean(refusal));
    Err(Failure::new("refused", words::clean(first))
        .stands(rest.chain(["nothing was pushed or changed".to_owned()]))
        .hint("`rota plan` shows all that a deploy would do"))
}

fn start_request(source: &Source, version: &Version, env: &EnvName) -> StartRequest {
    StartRequest {
        app: source.manifest.base().app.to_string(),
        env: env.to_string(),
        release: version.to_string(),
        manifest: source.text.clone(),
        manifest_name: source.name.clone(),
        kind: Kind::Deploy.into(),
        ..StartRequest::default()
    }
}

/// Makes a release of a manifest: the release's document.
pub async fn push(desk: &Desk, file: &Path, version: &Version) -> Result<String, Failure> {
    let source = manifest::read(desk, file)?;
    source.fits(desk, version)?;
    let content = Content::of(desk, &source, version).await?;
    push_content(desk, &source, version, &content).await
}

async fn push_content(
    desk: &Desk,
    source: &Source,
    version: &Version,
    content: &Content,
) -> Result<String, Failure> {
    let app = &source.manifest.base().app;
    let mut client = desk.client()?;
    match existing(&mut client, app, version).await? {
        Some(release) if release.digest != content.digest() => {
            return Err(other_digest(&release, content));
        }
        Some(_) => {
            desk.talk.detail(&format!("release {app} {version} is there already"));
            if let Some(packed) = content.packed() {
                // Its bytes may have been lost with the disk that they were on.
                upload::upload(desk, &mut client, packed).await?;
            }
        }
        None => content.bring(desk, &mut client).await?,
    }
    let request = PushRequest {
        manifest: source.text.clone(),
        manifest_name: source.name.clone(),
        version: version.to_string(),
        digest: content.digest().to_owned(),
        format: content.format().to_owned(),
    };
    let json = client.push(request).await?;
    let Pushed { warning } = talk::parse(&json)?;
    if let Some(warning) = warning {
        desk.talk.say(&format!("warning: release {app} {version}: {warning}"));
    }
    Ok(json)
}

/// What a controller says of a push, beside the release.
#[derive(Deserialize)]
struct Pushed {
    /// What its operator should know: its artifact is on one controller only.
    #[serde(default)]
    warning: Option<String>,
}

/// The release with this version, if there is one.
async fn existing(
    client: &mut Client,
    app: &AppName,
    version: &Version,
) -> Result<Option<ReleaseView>, Failure> {
    match client.read(&format!("releases/{app}/{version}")).await {
        Ok(json) => talk::parse(&json).map(Some),
        Err(error) => {
            let failure = Failure::from(error);
            if failure.kind == "not_found" { Ok(None) } else { Err(failure) }
        }
    }
}

fn other_digest(release: &ReleaseView, content: &Content) -> Failure {
    let ReleaseView { app, version, digest, created_at, who, .. } = release;
    let (pushed, digest) = (words::date(created_at), render::short(digest));
    let there = format!("there: sha256 {digest}, pushed {pushed} by {who}");
    let here = format!("here:  sha256 {}", render::short(content.digest()));
    Failure::new("refused", format!("release {app} {version} exists with another content"))
        .stands([there, here])
        .hint("a release never changes: give this one a new version")
}
