//! Text of others as a terminal may have it: names, reasons, and the output of runs. A terminal shows such text and never
//! obeys it.

/// The longest colour sequence that is passed on: longer ones are no colours.
const SGR_BYTES_MAX: usize = 48;

/// Ends all colours.
pub(crate) const RESET: &[u8] = b"\x1b[0m";

/// Returns whether a terminal must not get a character as it is. A selector of a variant only changes the form of the
/// character before it, and the blank of braille is a part of drawings.
pub(crate) fn is_unsafe(c: char) -> bool {
    let is_selector = |c| matches!(c, '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
    adjutant::is_invisible(c) && !is_selector(c) && c != '\u{2800}'
}

/// Returns the text in one line, with every character written out that a terminal would not show as it is.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Returns a JSON text in which every character is written out that a terminal would not show as it is. Outside of
/// strings JSON has no such characters.
pub(crate) fn json(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if is_unsafe(c) && c != '\n' {
            let units = c.encode_utf16(&mut units).iter();
            line.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            line.push(c);
        }
    }
    line
}

/// Makes a stream of bytes harmless: line breaks, tabs and visible characters pass, and colours if they are wanted. All
/// else is written out.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    colours: bool,
    /// The beginning of a character or of a colour.
    rest: Vec<u8>,
    is_coloured: bool,
}

/// What the next bytes are.
enum Piece {
    /// So many bytes that pass.
    Passes(usize),
    /// So many bytes that set or reset colours.
    Colour(usize),
    /// A character of so many bytes that is written out.
    Unsafe(char, usize),
    /// A byte that belongs to no character.
    Byte(u8),
    /// The beginning of something that goes on with the next bytes.
    Incomplete,
}

impl Plain {
    /// Returns a filter; with `colours` it passes the sequences that set them.
    pub(crate) fn new(colours: bool) -> Self {
        Self { colours, ..Self::default() }
    }

    /// Returns whole text made harmless. A colour ends with it.
    pub(crate) fn whole(bytes: &[u8], colours: bool) -> Vec<u8> {
        let mut plain = Self::new(colours);
        let mut text = plain.add(bytes);
        text.extend(plain.end());
        text
    }

    /// Takes more bytes. Returns what may be shown now.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut shown = Vec::with_capacity(rest.len());
        let mut at = 0;
        while at < rest.len() {
            match self.next(&rest[at..]) {
                Piece::Passes(count) => {
                    shown.extend_from_slice(&rest[at..at + count]);
                    at += count;
                }
                Piece::Colour(count) => {
                    let colour = &rest[at..at + count];
                    self.is_coloured = !matches!(colour, b"\x1b[m" | RESET);
                    shown.extend_from_slice(colour);
                    at += count;
                }
                Piece::Unsafe(c, count) => {
                    shown.extend(c.escape_default().map(|c| c as u8));
                    at += count;
                }
                Piece::Byte(byte) => {
                    write_out(byte, &mut shown);
                    at += 1;
                }
                Piece::Incomplete => break,
            }
        }
        self.rest = rest.split_off(at);
        shown
    }

    /// Returns what is left when nothing more comes.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        for byte in std::mem::take(&mut self.rest) {
            match byte {
                b' '..=b'~' => shown.push(byte),
                _ => write_out(byte, &mut shown),
            }
        }
        if std::mem::take(&mut self.is_coloured) {
            shown.extend_from_slice(RESET);
        }
        shown
    }

    fn next(&self, bytes: &[u8]) -> Piece {
        let passing = |byte: &&u8| matches!(byte, b'\n' | b'\t' | b' '..=b'~');
        let count = bytes.iter().take_while(passing).count();
        if count > 0 {
            return Piece::Passes(count);
        }
        match bytes[0] {
            b'\x1b' if self.colours => colour(bytes),
            byte @ ..0x80 => Piece::Unsafe(char::from(byte), 1),
            _ => character(bytes),
        }
    }
}

fn write_out(byte: u8, to: &mut Vec<u8>) {
    if byte.is_ascii() {
        to.extend(char::from(byte).escape_default().map(|c| c as u8));
    } else {
        to.extend(format!("\\x{byte:02x}").into_bytes());
    }
}

/// Reads a sequence that begins with ESC.
fn colour(bytes: &[u8]) -> Piece {
    let escape = Piece::Unsafe('\x1b', 1);
    match bytes.get(1) {
        None => return Piece::Incomplete,
        Some(b'[') => {}
        Some(_) => return escape,
    }
    let is_parameter = |byte: &&u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let end = 2 + bytes[2..].iter().take(SGR_BYTES_MAX).take_while(is_parameter).count();
    match bytes.get(end) {
        Some(b'm') => Piece::Colour(end + 1),
        None if end < SGR_BYTES_MAX => Piece::Incomplete,
        _ => escape,
    }
}

/// Reads a character of several bytes.
fn character(bytes: &[u8]) -> Piece {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) if error.error_len().is_none() => return Piece::Incomplete,
        Err(_) => return Piece::Byte(bytes[0]),
    };
    match valid.chars().next() {
        Some(c) if is_unsafe(c) => Piece::Unsafe(c, c.len_utf8()),
        Some(c) => Piece::Passes(c.len_utf8()),
        None => Piece::Byte(bytes[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_and_colours_only() {
        let check = |bytes: &[u8], colours: bool, want: &str| {
            let shown = Plain::whole(bytes, colours);
            assert_eq!(String::from_utf8_lossy(&shown), want, "{bytes:?}");
            // In whatever parts the bytes come.
            let mut plain = Plain::new(colours);
            let mut parts: Vec<u8> =
                bytes.iter().flat_map(|byte| plain.add(std::slice::from_ref(byte))).collect();
            parts.extend(plain.end());
            assert_eq!(parts, shown, "{bytes:?}");
        };
        check("a\tb\nä 漢 🦀\n".as_bytes(), false, "a\tb\nä 漢 🦀\n");
        check(b"\x1b]0;owned\x07\x1b[2J\x1b[H", false, "\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\u{1b}[H");
        check(b"\x1b]52;c;aGk=\x1b\\", true, "\\u{1b}]52;c;aGk=\\u{1b}\\");
        check(b"\x1b[31mred\x1b[0m", true, "\x1b[31mred\x1b[0m");
        check(b"\x1b[1;38:5:9mred", true, "\x1b[1;38:5:9mred\x1b[0m");
        check(b"\x1b[31mred", false, "\\u{1b}[31mred");
        check(b"\x1b[31", true, "\\u{1b}[31");
        check(b"\x1b[6n\x1b[?1049h\x1bc", true, "\\u{1b}[6n\\u{1b}[?1049h\\u{1b}c");
        check(b"i-1 a\ri-2 | b", true, "i-1 a\\ri-2 | b");
        check(b"\x00\x08\x7f", false, "\\u{0}\\u{8}\\u{7f}");
        check(
            "\u{9b}2J\u{202e}x\u{2028}\u{200b}".as_bytes(),
            true,
            "\\u{9b}2J\\u{202e}x\\u{2028}\\u{200b}",
        );
        check(b"\x9b2J\xff\xc3", true, "\\x9b2J\\xff\\xc3");
        check(b"\xf0\x9f\xa6", false, "\\xf0\\x9f\\xa6");
        let long = [b"\x1b[".as_slice(), &[b'1'; 100], b"m"].concat();
        check(&long, true, &format!("\\u{{1b}}[{}m", "1".repeat(100)));
    }

    #[test]
    fn names_are_written_out() {
        let check = |name: &str, want: &str| assert_eq!(one_line(name), want);
        check("web-1 ä", "web-1 ä");
        check("a\nb\x1b[31m", "a\\nb\\u{1b}[31m");
        check("db\u{200b}-1\u{202e}\u{2066}\u{feff}", "db\\u{200b}-1\\u{202e}\\u{2066}\\u{feff}");
        check("a\u{2028}b\u{2029}c\u{ad}", "a\\u{2028}b\\u{2029}c\\u{ad}");
        check("\u{e0041}", "\\u{e0041}");
    }

    #[test]
    fn json_is_the_same_document_without_characters_that_a_terminal_obeys() {
        let text = "a\u{7f}\u{9b}2J\u{202e}\u{200b}\u{e0041}ä\"\\";
        let document = serde_json::to_string(text).expect("a text");
        let written = json(&document);
        assert!(!written.chars().any(is_unsafe), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), text);
    }
}
