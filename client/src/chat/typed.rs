//! What was typed, cut into lines: which are sent, which are skipped, and which one means the end.
//!
//! Application, above L4; knows neither network nor terminal. The input comes in pieces that end
//! anywhere. A line is held back until it is complete, because only then is it known not to be `q`;
//! one that is too long to be that is passed on in parts, so that a line of any length fits.
//!
//! Deliberately not here: editing; the terminal's own line discipline does that (termios(3)).

/// A longer line is no command: it is passed on as it comes.
const PART_BYTES: usize = 64 * 1024;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// To be sent, with its end.
    Line(Vec<u8>),
    /// To be sent, the beginning or the middle of a long line.
    Part(Vec<u8>),
    /// Nothing was on the line.
    Skip,
    Quit,
}

/// Cuts the input into lines.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    pending: Vec<u8>,
    /// What lies before this has been given out.
    begin: usize,
    /// Parts of the current line have been given out.
    is_midway: bool,
}

impl Cutter {
    /// Takes in what has come.
    pub(crate) fn take_in(&mut self, piece: &[u8]) {
        self.pending.drain(..self.begin);
        self.begin = 0;
        self.pending.extend_from_slice(piece);
    }

    /// The next line, if it is complete, or a part of a long one.
    pub(crate) fn next(&mut self) -> Option<Typed> {
        let rest = &self.pending[self.begin..];
        if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest[..=end].to_vec();
            self.begin += line.len();
            return Some(self.judge(line));
        }
        if rest.len() < PART_BYTES {
            return None;
        }
        let part = rest.to_vec();
        self.begin += part.len();
        self.is_midway = true;
        Some(Typed::Part(part))
    }

    /// What was left without an end of line when the input ended; it gets one, because who echoes
    /// by lines would wait for it.
    pub(crate) fn finish(&mut self) -> Option<Typed> {
        let mut line = self.pending.split_off(self.begin);
        if line.is_empty() && !self.is_midway {
            return None;
        }
        line.push(b'\n');
        Some(self.judge(line))
    }

    fn judge(&mut self, line: Vec<u8>) -> Typed {
        if std::mem::take(&mut self.is_midway) {
            return Typed::Line(line);
        }
        // A line of spaces is something to echo; the end of a line of another system is not.
        let content = line.strip_suffix(b"\n").unwrap_or(&line);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        if content.is_empty() {
            return Typed::Skip;
        }
        if content.trim_ascii() == b"q" {
            return Typed::Quit;
        }
        Typed::Line(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes of `text` when it is given in pieces of `size` bytes.
    fn cut(text: &[u8], size: usize) -> Vec<Typed> {
        let mut cutter = Cutter::default();
        let mut all = Vec::new();
        for piece in text.chunks(size) {
            cutter.take_in(piece);
            all.extend(std::iter::from_fn(|| cutter.next()));
        }
        all.extend(cutter.finish());
        all
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        // Goal: the cutting does not depend on the pieces. Method: one text in pieces of every
        // size.
        let text = b"one\n\n  \r\n\r\n two \nquit\nqq\nlast";
        let expected = [
            line("one\n"),
            Typed::Skip,
            line("  \r\n"),
            Typed::Skip,
            line(" two \n"),
            line("quit\n"),
            line("qq\n"),
            line("last\n"),
        ];
        for size in 1..=text.len() {
            assert_eq!(cut(text, size), expected, "pieces of {size}");
        }
    }

    #[test]
    fn q_alone_quits() {
        // Goal: `q` is seen with spaces, with another system's end of line and with none. Method:
        // each.
        for text in ["q\n", " q \n", "q\r\n", "q"] {
            assert_eq!(cut(text.as_bytes(), 8), [Typed::Quit], "{text:?}");
        }
        assert_eq!(cut(b"", 1), []);
    }

    #[test]
    fn a_long_line_comes_in_parts() {
        // Goal: nothing of a line longer than the cutter keeps is lost or taken for a command.
        // Method: lines around the border whose last part would be `q` or nothing.
        for len in [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let mut text = vec![b'x'; len];
            text.extend_from_slice(b"q\nafter\n");
            let all = cut(&text, 4096);
            let mut joined = Vec::new();
            for typed in &all {
                match typed {
                    Typed::Line(bytes) | Typed::Part(bytes) => joined.extend_from_slice(bytes),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(joined, text);
            let lines = all.iter().filter(|typed| matches!(typed, Typed::Line(_)));
            assert_eq!(lines.count(), 2);
        }
        let mut whole = vec![b'x'; PART_BYTES];
        let parts = [Typed::Part(whole.clone()), line("\n")];
        assert_eq!(cut(&whole, PART_BYTES), parts, "without an end");
        whole.push(b'\n');
        assert_eq!(
            cut(&whole, PART_BYTES),
            parts,
            "with its end in another piece"
        );
    }
}
