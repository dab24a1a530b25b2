//! How errors and words of others are told: with their causes, and so that nobody can forge a line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// An error with everything that caused it, in one line. A cause that stands in an error's own text is not repeated.
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !told.contains(&text) {
                write!(f, ": {text}")?;
                told = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

/// What a terminal or its reader would take for something else than text: controls, line and paragraph separators, and the
/// characters that turn the direction of writing or cannot be seen.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(character, '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

/// The text with each unsafe character written as a Rust escape (`\n`, `\u{1b}`).
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_as(text, |character, escaped| match character {
        '\n' | '\r' | '\t' => escaped.extend(character.escape_default()),
        other => escaped.extend(other.escape_unicode()),
    })
}

/// JSON with each unsafe character written as an escape that JSON has (`\u001b`). Within JSON they stand in strings alone.
pub fn escape_json(text: &str) -> Cow<'_, str> {
    escape_as(text, |character, escaped| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn escape_as(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) { write(character, &mut escaped) } else { escaped.push(character) }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn check(text: &str, escaped: &str) {
        assert_eq!(escape(text), escaped);
    }

    #[test]
    fn plain_text_of_any_language_stays() {
        check("Grüße, 你好 🔔 \\n", "Grüße, 你好 🔔 \\n");
        assert!(matches!(escape("你好"), Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        check("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}");
        check("two\nlines\r\tand more", "two\\nlines\\r\\tand more");
        check("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}");
        check("evil\u{202e}txt.exe", "evil\\u{202e}txt.exe");
    }

    #[test]
    fn no_unsafe_character_is_left_whatever_comes() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        assert!(!escape(&all).contains(is_unsafe));
        assert!(!escape_json(&all).contains(is_unsafe));
    }

    #[test]
    fn escaped_json_means_the_same() {
        let text = serde_json::to_string("a\u{9b}b\u{202e}\u{1b}\n\"").unwrap();
        let escaped = escape_json(&text);
        assert!(escaped.contains("\\u009b") && escaped.contains("\\u202e"), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), "a\u{9b}b\u{202e}\u{1b}\n\"");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{what}")]
    struct Outer {
        what: &'static str,
        source: io::Error,
    }

    #[test]
    fn causes_are_told_once() {
        let outer = |what| Outer { what, source: io::Error::other("disk full") };
        assert_eq!(Causes(&outer("commit failed")).to_string(), "commit failed: disk full");
        assert_eq!(Causes(&outer("commit failed: disk full")).to_string(), "commit failed: disk full");
    }
}
