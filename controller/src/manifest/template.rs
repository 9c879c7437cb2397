//! Substitutions: `{version}`, `{label.zone}`; `{{` and `}}` are braces.

use super::keys::nearest;

/// Everything that can be substituted, besides `{label.NAME}`.
const NAMES: [&str; 5] = ["version", "app", "env", "port", "node"];

/// A part of a text with substitutions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Itself.
    Plain(String),
    /// `{version}`: the release's version.
    Version,
    /// `{app}`: the app's name.
    App,
    /// `{env}`: the environment's name.
    Env,
    /// `{port}`: where this instance listens.
    Port,
    /// `{node}`: the node's name.
    Node,
    /// `{label.NAME}`: a label of the node.
    Label(String),
}

/// Why a text with substitutions cannot be used, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct BadTemplate {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

/// Takes a text apart. A single `}` stands for itself; a single `{` begins a name.
pub fn pieces(text: &str) -> Result<Vec<Piece>, BadTemplate> {
    split(text, |_| false)
}

/// Takes a regular expression apart, in which counts such as `{3}` and `{2,5}` stay counts.
pub fn regex_pieces(text: &str) -> Result<Vec<Piece>, BadTemplate> {
    let part = |c: char| c.is_ascii_digit() || c == ',';
    split(text, |name| name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(part))
}

fn split(text: &str, keep: impl Fn(&str) -> bool) -> Result<Vec<Piece>, BadTemplate> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            plain.push('}');
            continue;
        }
        let Some((name, after)) = rest.split_once('}') else {
            let message = format!("a `{{` without its `}}` in \"{text}\"");
            return Err(BadTemplate { message, hint: braces() });
        };
        rest = after;
        if keep(name) {
            plain.push_str(&format!("{{{name}}}"));
            continue;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Plain(std::mem::take(&mut plain)));
        }
        pieces.push(piece(name)?);
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    Ok(pieces)
}

fn braces() -> String {
    "for a brace write `{{`".to_owned()
}

fn piece(name: &str) -> Result<Piece, BadTemplate> {
    match name {
        "version" => return Ok(Piece::Version),
        "app" => return Ok(Piece::App),
        "env" => return Ok(Piece::Env),
        "port" => return Ok(Piece::Port),
        "node" => return Ok(Piece::Node),
        _ => {}
    }
    if let Some(label) = name.strip_prefix("label.") {
        let good = rota_rollout::names::is_label(label);
        return if good { Ok(Piece::Label(label.to_owned())) } else { Err(bad_label(label)) };
    }
    let hint = match nearest(name, NAMES) {
        Some(known) => format!("did you mean `{{{known}}}`?"),
        None => format!(
            "known are {{version}}, {{app}}, {{env}}, {{port}}, {{node}} and {{label.NAME}}; {}",
            braces()
        ),
    };
    Err(BadTemplate { message: format!("unknown substitution `{{{name}}}`"), hint })
}

fn bad_label(label: &str) -> BadTemplate {
    BadTemplate {
        message: format!("`{{label.{label}}}` does not name a label"),
        hint: format!("a label's name: {}", rota_rollout::names::LABEL_RULE),
    }
}

#[cfg(test)]
mod tests {
    use super::Piece::*;
    use super::*;

    #[test]
    fn texts_come_apart() {
        let plain = |text: &str| Plain(text.to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("--port={port}", vec![plain("--port="), Port]),
            ("{app}-{version}", vec![App, plain("-"), Version]),
            ("{env}{node}{label.zone}", vec![Env, Node, Label("zone".to_owned())]),
            ("{{\"a\": {port}}}", vec![plain("{\"a\": "), Port, plain("}")]),
            ("{{version}}", vec![plain("{version}")]),
            ("{{\"a\": 1}", vec![plain("{\"a\": 1}")]),
            ("a } b", vec![plain("a } b")]),
            ("{{{{", vec![plain("{{")]),
            ("{{{app}}}", vec![plain("{"), App, plain("}")]),
        ] {
            assert_eq!(pieces(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn counts_in_expressions() {
        let expected = vec![Plain("a{2,}b{3}".to_owned()), Version];
        assert_eq!(regex_pieces("a{2,}b{3}{version}"), Ok(expected));
        assert!(regex_pieces("a{,3}").is_err());
    }

    #[test]
    fn what_does_not() {
        for (text, message, hint) in [
            ("{versoin}", "unknown substitution `{versoin}`", "did you mean `{version}`?"),
            ("a{", "a `{` without its `}` in \"a{\"", "for a brace write `{{`"),
        ] {
            let bad = pieces(text).unwrap_err();
            assert_eq!((bad.message.as_str(), bad.hint.as_str()), (message, hint), "{text}");
        }
        assert!(pieces("{label.}").is_err() && pieces("{label.A}").is_err());
        assert!(pieces("{}").is_err() && pieces("{ port }").is_err());
    }
}
