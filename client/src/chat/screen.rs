//! What the person sees: the prompt, and what the server says.
//!
//! Application, above L4. A file or a pipe gets the server's bytes as they are. A terminal gets
//! text: control characters, which could do anything to it (console_codes(4)), and what is not
//! UTF-8 are written as `\x1b`. The server may cut its answer anywhere, so the beginning of a
//! character is held back until the rest has come.
//!
//! Deliberately not here: waiting. Standard output is written to as any program does; while it
//! takes nothing, nothing can be shown either.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write, stdin, stdout};

const PROMPT: &str = "> ";

/// Standard output, and where on it we are.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Somebody sits there who wants to know when to type.
    is_interactive: bool,
    text: Option<Text>,
    is_at_prompt: bool,
    is_midline: bool,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        let is_terminal = stdout().is_terminal();
        Screen {
            is_interactive: is_terminal && stdin().is_terminal(),
            text: is_terminal.then(Text::default),
            is_at_prompt: false,
            is_midline: false,
        }
    }

    pub(crate) fn greet(&self, connect: &str) -> io::Result<()> {
        if !self.is_interactive {
            return Ok(());
        }
        write(format!("connected to {connect}; q ends\n").as_bytes())
    }

    /// Asks for a line, if there is somebody to be asked.
    pub(crate) fn prompt(&mut self) -> io::Result<()> {
        if !self.is_interactive {
            return Ok(());
        }
        self.is_at_prompt = true;
        write(PROMPT.as_bytes())
    }

    /// A line was typed: the terminal's echo of it has ended the line of the prompt.
    pub(crate) fn typed(&mut self) {
        self.is_at_prompt = false;
    }

    pub(crate) fn show(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut shown = Vec::new();
        if std::mem::take(&mut self.is_at_prompt) {
            shown.push(b'\n');
        }
        match &mut self.text {
            None => shown.extend_from_slice(piece),
            Some(text) => shown.extend_from_slice(text.of(piece).as_bytes()),
        }
        self.is_midline = piece.last().is_some_and(|byte| *byte != b'\n');
        write(&shown)
    }

    /// Leaves a terminal at the beginning of a line.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let Some(text) = &mut self.text else {
            return Ok(());
        };
        let mut rest = text.finish();
        if self.is_midline || self.is_at_prompt {
            rest.push('\n');
        }
        write(rest.as_bytes())
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Makes text that is safe to show of bytes that come in pieces.
#[derive(Debug, Default)]
struct Text {
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Text {
    fn of(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let whole = bytes.len() - unfinished_len(&bytes);
        self.held = bytes.split_off(whole);
        escape(&bytes)
    }

    fn finish(&mut self) -> String {
        escape(&std::mem::take(&mut self.held))
    }
}

/// How many bytes at the end are the beginning of a character of which the rest may follow.
fn unfinished_len(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else {
        return 0;
    };
    match std::str::from_utf8(last.invalid()) {
        Err(error) if error.error_len().is_none() => last.invalid().len(),
        _ => 0,
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                control if control.is_control() => {
                    // Writing into a string cannot fail.
                    let _ = write!(text, "\\x{:02x}", u32::from(control));
                }
                printable => text.push(printable),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_however_it_comes() {
        // Goal: characters survive being cut, everything else is written out. Method: a text with
        // characters of every length, broken ones and controls, in pieces of every size.
        let bytes = "aß€😀\tz\n".as_bytes();
        let bytes = [bytes, b"\xff\xc3(\xe2\x82\n\x1b[2J\r\xf0\x9f\x98"].concat();
        let expected = "aß€😀\tz\n\\xff\\xc3(\\xe2\\x82\n\\x1b[2J\\x0d\\xf0\\x9f\\x98";
        for size in 1..=bytes.len() {
            let mut text = Text::default();
            let mut shown: String = bytes.chunks(size).map(|piece| text.of(piece)).collect();
            shown += &text.finish();
            assert_eq!(shown, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_whole_character_is_shown_at_once() {
        // Goal: only what is unfinished is held back. Method: the lengths of some ends.
        for (bytes, len) in [
            (&b"abc"[..], 0),
            ("a€".as_bytes(), 0),
            (b"a\xe2", 1),
            (b"a\xe2\x82", 2),
            (b"a\xff", 0),
            (b"", 0),
        ] {
            assert_eq!(unfinished_len(bytes), len, "{bytes:?}");
        }
    }
}
