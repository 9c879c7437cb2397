//! `[artifact]`: where an app's files come from.

use rota_rollout::names::Digest;

use super::missing_table;
use crate::manifest::problem::Finding;
use crate::manifest::read::{Known, Reader};
use crate::manifest::resolved::Artifact;
use crate::manifest::tree::{Entry, Table};

pub(super) fn read(root: &Table, reader: &mut Reader) -> Option<Artifact> {
    let Some(header) = root.get("artifact") else {
        missing_table("artifact", "path = \"dist\"", reader);
        return None;
    };
    let table = header.table()?;
    let Some(chosen) = reader.one_of(table, &["path", "url", "image"]) else {
        reader.note(
            Finding::at(header.span.clone(), header.field.clone(), "[artifact] says nothing")
                .hint("write one of `path`, `url` (with `sha256`) and `image`"),
        );
        return None;
    };
    let sha256 = table.get("sha256");
    if let Some(sha256) = sha256.filter(|_| chosen.name() != "url") {
        let message = format!("`sha256` goes with `url`, not with `{}`", chosen.name());
        reader.note(Finding::key(sha256, message).also(chosen).hint("remove this line"));
    }
    match chosen.name() {
        "path" => path(chosen, reader).map(Artifact::Path),
        "image" => image(chosen, reader).map(Artifact::Image),
        _ => url(chosen, sha256, reader),
    }
}

fn path(entry: &Entry, reader: &mut Reader) -> Option<String> {
    reader.template(entry, Known::WhenPacked)
}

fn image(entry: &Entry, reader: &mut Reader) -> Option<String> {
    let text = reader.template(entry, Known::WhenPacked)?;
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-/:@{}".contains(&c);
    if text.bytes().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '{') {
        return Some(text);
    }
    let message = format!("\"{text}\" is not the name of an image");
    reader.note(
        Finding::value(entry, message)
            .hint("write for example \"registry.example/shop:{version}\""),
    );
    None
}

fn url(entry: &Entry, sha256: Option<&Entry>, reader: &mut Reader) -> Option<Artifact> {
    let url = reader.template(entry, Known::WhenPacked).filter(|url| {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let good = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
            && url.bytes().all(|c| c.is_ascii_graphic());
        if !good {
            let message = format!("\"{url}\" is not a URL that can be fetched");
            reader.note(Finding::value(entry, message).hint("begin with https:// or http://"));
        }
        good
    });
    let digest = match sha256 {
        Some(sha256) => reader.parsed::<Digest>(sha256),
        None => {
            let message = "`url` needs `sha256`: what must the file be?";
            reader.note(
                Finding::at(entry.key.clone(), entry.beside("sha256"), message)
                    .hint("write what `sha256sum` prints for it: sha256 = \"…\""),
            );
            None
        }
    };
    Some(Artifact::Url { url: url?, sha256: digest? })
}
