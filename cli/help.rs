//! Help as a terminal has room for it.

/// The columns of help that no terminal reads.
pub(crate) const USUAL_WIDTH: usize = 80;

/// Lines longer than this are hard to read on terminals that have room for them.
pub(crate) const WIDTH_MAX: usize = 100;

/// The least room for text behind a name; with less of it, text begins below the name.
const TEXT_MIN: usize = 28;

/// The indentation of text that begins below its name.
const BELOW: usize = 10;

/// Returns a text with long lines broken between words. The rest of a line stands below its text, not below the name in
/// front of the text.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    for line in text.lines() {
        wrap(line, width, &mut wrapped);
    }
    wrapped
}

fn wrap(line: &str, width: usize, to: &mut String) {
    if line.chars().count() <= width {
        to.push_str(line.trim_end());
        to.push('\n');
        return;
    }
    let begin = text_begins(line);
    let (name, words) = line.split_at(begin);
    let mut column = name.chars().count();
    let mut indent = column;
    to.push_str(name);
    if !name.trim().is_empty() && width < column + TEXT_MIN {
        indent = BELOW;
        to.truncate(to.trim_end().len());
        to.push('\n');
        to.push_str(&" ".repeat(indent));
        column = indent;
    }
    let mut is_first = true;
    for word in words.split_whitespace() {
        let chars = word.chars().count();
        if !is_first && column + 1 + chars > width {
            to.push('\n');
            to.push_str(&" ".repeat(indent));
            column = indent;
        } else if !is_first {
            to.push(' ');
            column += 1;
        }
        to.push_str(word);
        column += chars;
        is_first = false;
    }
    to.push('\n');
}

/// Returns where the text of a line begins: behind the name of an option or a command, and the gap after it.
fn text_begins(line: &str) -> usize {
    let indent = line.len() - line.trim_start().len();
    if indent == 0 {
        return 0;
    }
    let rest = &line[indent..];
    match rest.find("  ") {
        Some(gap) => {
            let text = rest[gap..].trim_start();
            line.len() - text.len()
        }
        None => indent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_its_terminal() {
        let check = |text: &str, width: usize, want: &str| assert_eq!(wrapped(text, width), want);
        check("a b\n\nc\n", 10, "a b\n\nc\n");
        check("one two three\n", 9, "one two\nthree\n");
        check(
            "  --one <X>  aaa bbb ccc ddd eee fff ggg hhh iii\n",
            42,
            "  --one <X>  aaa bbb ccc ddd eee fff ggg\n             hhh iii\n",
        );
        check(
            "  --one <LONG-VALUE>  aaa bbb ccc ddd eee\n",
            40,
            "  --one <LONG-VALUE>\n          aaa bbb ccc ddd eee\n",
        );
        check("      aaa bbb ccc\n", 12, "      aaa\n      bbb\n      ccc\n");
        check("averyverylongword b\n", 5, "averyverylongword\nb\n");
    }
}
