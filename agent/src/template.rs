//! Puts a node's own values into what the operator wrote: `{version} {app} {env} {port} {node}
//! {label.NAME}`.

use std::collections::BTreeMap;

use thiserror::Error;

/// What the names stand for, for one instance of one release on this node.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// `{app}`.
    pub app: &'a str,
    /// `{version}`.
    pub version: &'a str,
    /// `{env}`.
    pub env: &'a str,
    /// `{node}`.
    pub node: &'a str,
    /// `{port}`; refused when the app has none.
    pub port: Option<u16>,
    /// `{label.NAME}`.
    pub labels: &'a BTreeMap<String, String>,
}

/// A text whose substitutions cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A name that nothing stands for.
    #[error(
        "`{text}` uses {{{name}}}, which is not known here; known are version, app, env, port, \
         node and label.NAME, and {{{{ is a brace"
    )]
    Unknown { text: String, name: String },
    /// `{label.NAME}` of a label that this node does not have.
    #[error("`{text}` uses {{label.{label}}}, but node {node} has no label `{label}`")]
    NoLabel { text: String, label: String, node: String },
    /// `{port}` of an app that listens nowhere.
    #[error("`{text}` uses {{port}}, but {app} has no port")]
    NoPort { text: String, app: String },
    /// A brace that opens a name and nothing that closes it.
    #[error("`{text}` has a {{ without its }}; write {{{{ for a brace")]
    Open { text: String },
}

impl Values<'_> {
    /// The text with every name replaced by its value.
    pub fn render(&self, text: &str) -> Result<String, TemplateError> {
        self.expand(text, |_| false, |value| value)
    }

    /// Each of the texts with every name replaced by its value.
    pub fn render_all(&self, texts: &[String]) -> Result<Vec<String>, TemplateError> {
        texts.iter().map(|text| self.render(text)).collect()
    }

    /// A regular expression: values match literally, and counts such as `{3}` or `{2,5}` stay
    /// counts.
    pub fn render_regex(&self, text: &str) -> Result<String, TemplateError> {
        self.expand(text, is_count, |value| regex_lite::escape(&value))
    }

    fn expand(
        &self,
        text: &str,
        keep: impl Fn(&str) -> bool,
        encode: impl Fn(String) -> String,
    ) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
            } else if brace == "}" {
                out.push('}');
            } else {
                let end =
                    rest.find('}').ok_or_else(|| TemplateError::Open { text: text.into() })?;
                let name = &rest[..end];
                if keep(name) {
                    out.push_str(&format!("{{{name}}}"));
                } else {
                    out.push_str(&encode(self.value(text, name)?));
                }
                rest = &rest[end + 1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, text: &str, name: &str) -> Result<String, TemplateError> {
        let no_port = || TemplateError::NoPort { text: text.into(), app: self.app.into() };
        match (name, name.strip_prefix("label.")) {
            ("app", _) => Ok(self.app.to_owned()),
            ("version", _) => Ok(self.version.to_owned()),
            ("env", _) => Ok(self.env.to_owned()),
            ("node", _) => Ok(self.node.to_owned()),
            ("port", _) => Ok(self.port.ok_or_else(no_port)?.to_string()),
            (_, Some(label)) => {
                self.labels.get(label).cloned().ok_or_else(|| TemplateError::NoLabel {
                    text: text.into(),
                    label: label.into(),
                    node: self.node.into(),
                })
            }
            (_, None) => Err(TemplateError::Unknown { text: text.into(), name: name.into() }),
        }
    }
}

/// `3`, `3,` or `3,5`: what a regular expression writes between braces.
fn is_count(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_digit() || c == ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(port: Option<u16>, f: impl FnOnce(Values<'_>)) {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let (app, version, env, node) = ("shop", "1.2.0", "prod", "web-01");
        f(Values { app, version, env, node, port, labels: &labels });
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        with(Some(9000), |values| {
            let got = values.render(text).unwrap_or_else(|error| error.to_string());
            assert_eq!(got, expected, "{text}");
        });
    }

    #[test]
    fn names_become_values() {
        check("plain", "plain");
        check("", "");
        check("--port={port}", "--port=9000");
        check("{app} {version} {env} {node} {label.zone}", "shop 1.2.0 prod web-01 a");
        check("{{port}}", "{port}");
        check("{{{port}}}", "{9000}");
        check("a } b", "a } b");
        check("größe {app} ü", "größe shop ü");
    }

    #[test]
    fn what_is_not_known_is_named() {
        check(
            "x {prot}",
            "`x {prot}` uses {prot}, which is not known here; known are version, app, env, port, \
             node and label.NAME, and {{ is a brace",
        );
        check(
            "{label.rack}",
            "`{label.rack}` uses {label.rack}, but node web-01 has no label `rack`",
        );
        check("{port", "`{port` has a { without its }; write {{ for a brace");
        with(None, |values| {
            let error = values.render("{port}").unwrap_err().to_string();
            assert_eq!(error, "`{port}` uses {port}, but shop has no port");
        });
    }

    #[test]
    fn a_regex_keeps_its_counts_and_takes_values_literally() {
        with(Some(1), |values| {
            let rendered = values.render_regex(r"v{version} \d{3} x{2,}").expect("renders");
            assert_eq!(rendered, r"v1\.2\.0 \d{3} x{2,}");
        });
    }
}
