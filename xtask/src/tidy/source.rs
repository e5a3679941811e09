//! Rust source as words with line numbers, without comments and literals: enough to judge imports
//! and keywords, and not misled by either in prose.

/// A word or a punctuation character; `::` is one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// Line, counted from 1.
    pub(super) line: usize,
}

/// A path such as `crate::trace::model`, with groups in `use` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Its words.
    pub(super) words: Vec<&'a str>,
    /// Line of its last word.
    pub(super) line: usize,
}

/// Splits a file.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, is_token) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            'r' | 'b' | 'c' if literal_prefix(rest).is_some() => {
                (literal_prefix(rest).unwrap_or(1), false)
            }
            '\'' => (character_or_lifetime(rest), false),
            _ if is_word(first) => (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true),
            _ if rest.starts_with("::") => (2, true),
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        if is_token {
            tokens.push(Token {
                text: &rest[..length],
                line,
            });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of a string that begins with its quote.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a literal with a prefix (`r"`, `br#"`, `b'`, `c"`), if this is one.
fn literal_prefix(rest: &str) -> Option<usize> {
    let letters = rest.find(|c| !matches!(c, 'r' | 'b' | 'c'))?;
    let after = &rest[letters..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let is_raw = rest[..letters].ends_with('r');
    match after[hashes..].chars().next()? {
        '"' if is_raw => {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &after[hashes + 1..];
            let length = body.find(&end).map_or(body.len(), |at| at + end.len());
            Some(letters + hashes + 1 + length)
        }
        '"' if hashes == 0 => Some(letters + string(after)),
        '\'' if hashes == 0 && &rest[..letters] == "b" => {
            Some(letters + character_or_lifetime(after))
        }
        _ => None,
    }
}

/// Length of `'x'` or `'\n'`; of a lifetime only the quote.
fn character_or_lifetime(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            characters.next();
            characters
                .find(|(_, c)| *c == '\'')
                .map_or(rest.len(), |(at, _)| at + 1)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// All paths, each `use` group giving one per member.
pub(super) fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_path_start(tokens, at) {
            at = path(tokens, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

fn is_path_start(tokens: &[Token<'_>], at: usize) -> bool {
    tokens[at].text.starts_with(is_word)
}

/// Reads one path from `at` and returns where it ends.
fn path<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    paths: &mut Vec<Path<'a>>,
) -> usize {
    let mut words = prefix.to_vec();
    let mut line = tokens[at].line;
    loop {
        match tokens.get(at) {
            Some(token) if token.text.starts_with(is_word) => {
                words.push(token.text);
                line = token.line;
                at += 1;
            }
            Some(token) if token.text == "{" => {
                return group(tokens, at + 1, &words, paths);
            }
            _ => break, // a glob, or generic arguments
        }
        match tokens.get(at) {
            Some(token) if token.text == "::" => at += 1,
            _ => break,
        }
    }
    paths.push(Path { words, line });
    at
}

/// Reads the members of a group and returns where it ends.
fn group<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    paths: &mut Vec<Path<'a>>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            _ if is_path_start(tokens, at) => at = path(tokens, at, prefix, paths),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    fn joined(text: &str) -> Vec<String> {
        paths(&tokens(text))
            .into_iter()
            .map(|path| path.words.join("::"))
            .collect()
    }

    #[test]
    fn leaves_out_comments_and_literals() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"a("b \" c", r#"d"e"#, b"f", 'g', '\'', b'h')"##),
            ["a", "(", ",", ",", ",", ",", ",", ")"]
        );
        assert_eq!(
            words("fn f<'a>(x: &'a str)"),
            [
                "fn", "f", "<", "a", ">", "(", "x", ":", "&", "a", "str", ")"
            ]
        );
        assert_eq!(words("r#type b0 c"), ["r", "#", "type", "b0", "c"]);
    }

    #[test]
    fn knows_lines() {
        let lines: Vec<usize> = tokens("a\n\"x\ny\"\nb")
            .iter()
            .map(|token| token.line)
            .collect();
        assert_eq!(lines, [1, 4]);
    }

    #[test]
    fn takes_groups_apart() {
        assert_eq!(
            joined("use crate::{record, trace::{self, model}};"),
            [
                "use",
                "crate::record",
                "crate::trace::self",
                "crate::trace::model"
            ]
        );
        assert_eq!(joined("std::fs::read(x)"), ["std::fs::read", "x"]);
        assert_eq!(joined("use super::super::*;"), ["use", "super::super"]);
    }
}
