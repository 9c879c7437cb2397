//! What counts as a name: checked where it comes in (command line, wire), believed afterwards.

/// The rule of every DNS label (RFC 1123), in words.
pub const LABEL_RULE: &str =
    "use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// The rule of versions, in words.
pub const VERSION_RULE: &str =
    "use 1 to 64 letters, digits, `.`, `-`, `_` and `+`, beginning with a letter or digit";

/// The rule of digests, in words.
pub const DIGEST_RULE: &str = "use 64 hexadecimal digits in lower case";

/// Is `text` a DNS label, in lower case?
pub fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Is `text` a version? Such a text is also safe as one part of a path.
pub fn is_version(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b".-_+".contains(&c);
    (1..=64).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Is `text` a SHA-256 digest as `sha256sum` prints it?
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Is `text` a key of a label (`zone`, `rack.row`)? Values may be anything printable.
pub fn is_label_key(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The known word that is nearest to `word`, when one is near enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = 1 + word.chars().count() / 3;
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= near_enough)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: the fewest insertions, removals and replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_versions_and_digests() {
        for (text, label, version) in [
            ("web-01", true, true),
            ("0", true, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, true),
            ("Web", false, true),
            ("a.b", false, true),
            ("..", false, false),
            ("../etc", false, false),
            ("a/b", false, false),
            ("ä", false, false),
        ] {
            assert_eq!((is_label(text), is_version(text)), (label, version), "{text:?}");
        }
        assert!(is_digest(&"0a".repeat(32)));
        assert!(!is_digest(&"0A".repeat(32)));
        assert!(!is_digest("0a"));
    }

    #[test]
    fn the_nearest_word() {
        let known = ["controller", "name", "role", "label", "edge"];
        for (word, nearest_word) in [
            ("contoller", Some("controller")),
            ("names", Some("name")),
            ("rloe", Some("role")),
            ("zebra-crossing", None),
        ] {
            assert_eq!(nearest(word, known), nearest_word, "{word}");
        }
    }
}
