//! Characters of texts from outside: characters that are invisible, and characters that mean nothing to a shell.

/// Returns whether a character shows nothing by itself, or changes how the text around it is shown: control
/// characters, the format characters of Unicode (zero-width ones and those of bidirectional text among them), the
/// separators of lines and paragraphs, and fillers. Two texts that differ by such characters look alike; on a
/// terminal they can hide a part of a line or reverse it. A program that shows texts from outside should escape such
/// characters.
///
/// # A name that looks like another one
///
/// ```
/// assert!("db\u{200b}-1".contains(adjutant::is_invisible));
/// assert!("exe.\u{202e}txt".contains(adjutant::is_invisible));
/// assert!(!"Zürich-1 数据".contains(adjutant::is_invisible));
/// ```
pub fn is_invisible(c: char) -> bool {
    /// Categories Cf, Zl and Zp of Unicode 16, what else its property `Default_Ignorable_Code_Point` has,
    /// and the blank of braille.
    const RANGES: [(u32, u32); 31] = [
        (0x00ad, 0x00ad),
        (0x034f, 0x034f),
        (0x0600, 0x0605),
        (0x061c, 0x061c),
        (0x06dd, 0x06dd),
        (0x070f, 0x070f),
        (0x0890, 0x0891),
        (0x08e2, 0x08e2),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x200b, 0x200f),
        (0x2028, 0x202e),
        (0x2060, 0x206f),
        (0x2800, 0x2800),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0f),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfffb),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0000, 0xe0fff),
        // Noncharacters, which no font has.
        (0xfdd0, 0xfdef),
        (0xfffe, 0xffff),
        (0x1fffe, 0x1ffff),
        (0x2fffe, 0x2ffff),
        (0x3fffe, 0x3ffff),
    ];
    let code = u32::from(c);
    // Most texts have none of these characters.
    c.is_control()
        || code >= RANGES[0].0 && RANGES.iter().any(|(from, to)| (*from..=*to).contains(&code))
}

/// Returns whether a character is a letter, a digit or one of `._:@-`: no shell takes these for more than text,
/// wherever they stand in a script.
pub(crate) fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "._:@-".contains(c)
}

/// Returns whether ids of instances may have a character, unless the limits allow more.
pub(crate) fn is_of_ids(c: char) -> bool {
    c.is_ascii() && is_plain(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_invisible_and_what_people_write_is_not() {
        for c in ['\0', '\t', '\u{7f}', '\u{9b}', '\u{ad}', '\u{200b}', '\u{200d}', '\u{200f}'] {
            assert!(is_invisible(c), "{c:?}");
        }
        for c in
            ['\u{2028}', '\u{2029}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{feff}']
        {
            assert!(is_invisible(c), "{c:?}");
        }
        for c in ['\u{3164}', '\u{fe0f}', '\u{e0041}', '\u{180e}', '\u{61c}', '\u{2065}'] {
            assert!(is_invisible(c), "{c:?}");
        }
        for c in "aZ09 ._:@-/\\$`'\"(){}é߀Ωשع数据ひ한🚀".chars() {
            assert!(!is_invisible(c), "{c:?}");
        }
    }

    #[test]
    fn what_shells_give_a_meaning_is_not_plain() {
        for c in "aZ09._:@-éß数".chars() {
            assert!(is_plain(c), "{c:?}");
        }
        for c in " \t\n$`'\"\\|&;<>(){}[]*?!#~%^=+,/\u{2018}\u{201c}\u{a0}".chars() {
            assert!(!is_plain(c), "{c:?}");
        }
        assert!(is_of_ids('a') && !is_of_ids('é'));
    }
}
