//! The project's own source files, cut into words, for the tests that hold them to the house rules.
//!
//! Test support. A file becomes a flat list of [`Word`]s, each with its line: comments are gone,
//! string literals are single words, and brackets are words, too. That is all the house rules need;
//! the cutting itself is proc-macro2's, so that it agrees with the compiler's.
//!
//! Deliberately not here: any rule (see `tests/house_rules.rs`), and any knowledge of types: what
//! a macro expands to, or whose method is called, cannot be seen from here.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};

/// A word of a source file.
#[derive(Clone, Debug)]
pub struct Word {
    /// As it is written; `::` is one word.
    pub text: String,
    /// Counted from 1.
    pub line: usize,
    /// Whether this is a string, a character or a number, whose text says nothing about the code.
    pub literal: bool,
}

/// A function with a body.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// From the line with `fn` to the one with the closing brace.
    pub lines: Range<usize>,
}

/// One source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the project's root on, with slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// All words.
    pub words: Vec<Word>,
    /// Which words are tests: items under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
}

/// The directory with the workspace's Cargo.toml.
pub fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests lie in the project")
        .to_owned()
}

/// Every Rust file below `directory` (from the project's root on), sorted; build output left out.
///
/// # Panics
///
/// If a file cannot be read, or is not Rust.
pub fn below(directory: &str) -> Vec<Source> {
    let root = project();
    let mut paths = Vec::new();
    collect(&root.join(directory), &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).expect("found below the root");
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Source::new(&name.to_string_lossy().replace('\\', "/"), &text)
    };
    paths.iter().map(read).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("the project's directories can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    /// Cuts `text` into words.
    ///
    /// # Panics
    ///
    /// If it is not Rust.
    pub fn new(path: &str, text: &str) -> Source {
        let stream = TokenStream::from_str(text).unwrap_or_else(|error| {
            let at = error.span().start();
            panic!("{path}:{}: {error}", at.line);
        });
        let mut words = Vec::new();
        flatten(stream, &mut words);
        let mut source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
            words,
            tests: Vec::new(),
        };
        source.tests = source.find_tests();
        source
    }

    /// Whether the whole file is a test (`tests.rs`, or below a `tests` directory).
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| part == "tests.rs" || part == "tests")
    }

    /// The words outside of tests, with their positions in [`Source::words`].
    pub fn product(&self) -> impl Iterator<Item = (usize, &Word)> {
        let is_product = |position: usize| {
            let inside = self.tests.iter().any(|range| range.contains(&position));
            !inside && !self.is_test()
        };
        self.words
            .iter()
            .enumerate()
            .filter(move |(position, _)| is_product(*position))
    }

    /// How many lines the file has without its tests.
    pub fn product_lines(&self) -> usize {
        let in_tests = |range: &Range<usize>| {
            self.words[range.end - 1].line - self.words[range.start].line + 1
        };
        self.text.lines().count() - self.tests.iter().map(in_tests).sum::<usize>()
    }

    /// Whether the words from `position` on are these.
    pub fn reads(&self, position: usize, expected: &[&str]) -> bool {
        expected.iter().enumerate().all(|(offset, expected)| {
            self.words
                .get(position + offset)
                .is_some_and(|word| !word.literal && word.text == *expected)
        })
    }

    /// The word at `position`, or nothing behind the end.
    pub fn text_at(&self, position: usize) -> &str {
        self.words
            .get(position)
            .map_or("", |word| word.text.as_str())
    }

    /// All functions that have bodies, tests' too. What macros make of `fn $name` is not seen.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (position, word) in self.words.iter().enumerate() {
            let name = self.text_at(position + 1);
            let named = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
            if word.literal || word.text != "fn" || !named {
                continue;
            }
            let end = self.item_end(position);
            let last = &self.words[end - 1];
            if last.text == "}" {
                functions.push(Function {
                    name: name.to_owned(),
                    lines: word.line..last.line + 1,
                });
            }
        }
        functions
    }

    /// The first segments, below the crate's root, of what is named by `crate::`, `super::` and
    /// `self::` outside of tests, in imports and elsewhere, with their lines. `*` is a glob.
    pub fn names_in_crate(&self) -> Vec<(String, usize)> {
        let mut names = Vec::new();
        for (position, word) in self.product() {
            let starts = matches!(word.text.as_str(), "crate" | "super" | "self");
            let continues = position > 0 && self.text_at(position - 1) == "::";
            if word.literal || !starts || continues || self.text_at(position + 1) != "::" {
                continue;
            }
            let mut base = match word.text.as_str() {
                "crate" => Vec::new(),
                _ => self.module(),
            };
            let mut at = position;
            if word.text == "crate" {
                at += 2;
            }
            while matches!(self.text_at(at), "super" | "self") && self.text_at(at + 1) == "::" {
                if self.text_at(at) == "super" {
                    base.pop();
                }
                at += 2;
            }
            match base.first() {
                Some(top) => names.push((top.clone(), word.line)),
                None => names.extend(self.firsts(at).into_iter().map(|name| (name, word.line))),
            }
        }
        names
    }

    /// The modules that lead to this file, from the crate's root on.
    pub fn module(&self) -> Vec<String> {
        let (_, inside) = self.path.split_once("src/").unwrap_or(("", &self.path));
        let inside = inside.trim_end_matches(".rs");
        let mut modules: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if modules
            .last()
            .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
        {
            modules.pop();
        }
        modules
    }

    /// The first segment of the path at `position`, or of each in the group there.
    fn firsts(&self, position: usize) -> Vec<String> {
        if self.text_at(position) != "{" {
            return vec![self.text_at(position).to_owned()];
        }
        let mut firsts = Vec::new();
        let mut depth = 0;
        for at in position..self.words.len() {
            match self.text_at(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 1 && matches!(self.text_at(at - 1), "{" | ",") => {
                    firsts.push(name.to_owned());
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        firsts
    }

    /// One past the item that begins at `start`: past its first `;` or its first `{...}`.
    fn item_end(&self, start: usize) -> usize {
        let mut depth = 0;
        for position in start..self.words.len() {
            let word = &self.words[position];
            match word.text.as_str() {
                _ if word.literal => {}
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        return position + 1;
                    }
                }
                ";" if depth == 0 => return position + 1,
                _ => {}
            }
        }
        self.words.len()
    }

    fn find_tests(&self) -> Vec<Range<usize>> {
        const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
        let mut tests: Vec<Range<usize>> = Vec::new();
        for start in 0..self.words.len() {
            let known = tests.last().is_some_and(|last| last.end > start);
            if !known && self.reads(start, &ATTRIBUTE) {
                tests.push(start..self.item_end(start));
            }
        }
        tests
    }
}

fn flatten(stream: TokenStream, words: &mut Vec<Word>) {
    let word = |text: &str, span: Span, literal: bool| Word {
        text: text.to_owned(),
        line: span.start().line,
        literal,
    };
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let span = tree.span();
        match tree {
            TokenTree::Ident(name) => words.push(word(&name.to_string(), span, false)),
            TokenTree::Literal(literal) => words.push(word(&literal.to_string(), span, true)),
            TokenTree::Punct(mark) => {
                let joint = mark.as_char() == ':' && mark.spacing() == Spacing::Joint;
                if joint && trees.next_if(is_colon).is_some() {
                    words.push(word("::", span, false));
                } else {
                    words.push(word(&mark.to_string(), span, false));
                }
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                words.push(word(open, group.span_open(), false));
                flatten(group.stream(), words);
                words.push(word(close, group.span_close(), false));
            }
        }
    }
}

fn is_colon(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(mark) if mark.as_char() == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_the_product() {
        // Goal: what stands under cfg(test) is left out, and only that. Method: a file with both.
        let text = "fn a() { x }\n#[cfg(test)]\n#[x]\nmod t {\n fn b() { y }\n}\nfn c() { z }\n";
        let source = Source::new("runtime/src/a.rs", text);
        let product: Vec<&str> = source
            .product()
            .map(|(_, word)| word.text.as_str())
            .collect();
        assert!(product.contains(&"x") && product.contains(&"z") && !product.contains(&"y"));
        assert_eq!(source.product_lines(), 2);
        let lines: Vec<_> = source
            .functions()
            .into_iter()
            .map(|found| found.lines)
            .collect();
        assert_eq!(lines, [1..2, 5..6, 7..8]);
    }

    #[test]
    fn names_are_resolved_from_the_root_on() {
        // Goal: an import is seen through super, groups and plain paths. Method: one of each.
        let text = "//! use crate::no;\nuse super::super::{one::Two, three, four::{five, six}};
            use crate::seven::eight;\nuse super::nine;\nfn f() { crate::ten(\"crate::no\") }";
        let source = Source::new("runtime/src/sched/driver/mod.rs", text);
        let names: Vec<String> = source
            .names_in_crate()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["one", "three", "four", "seven", "sched", "ten"]);
    }
}
