//! Text of others on a terminal: nothing in it may move the cursor, recolour, reorder or start a line of its own.

use std::borrow::Cow;

/// What a terminal or its reader would take for something else than text: controls, line and paragraph separators, and the
/// characters that turn the direction of writing or cannot be seen.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(character, '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

/// The text with each unsafe character written as a Rust escape (`\n`, `\u{1b}`).
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => escaped.extend(character.escape_default()),
            other if is_unsafe(other) => escaped.extend(other.escape_unicode()),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
