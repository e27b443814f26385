//! Example 3: a coroutine, a function that stops in the middle, hands a value out, and goes on.
//!
//! The function below walks a tree by plain recursion. With an iterator it would have to keep a
//! list of the nodes still to visit; here that list is its own stack, which stands still between
//! two values. A green thread does exactly this while it waits for its socket.

use runtime::coroutine::{Coroutine, State, Suspender};

/// A binary tree of words.
struct Tree {
    left: Option<Box<Tree>>,
    word: &'static str,
    right: Option<Box<Tree>>,
}

fn leaf(word: &'static str) -> Option<Box<Tree>> {
    node(None, word, None)
}

fn node(
    left: Option<Box<Tree>>,
    word: &'static str,
    right: Option<Box<Tree>>,
) -> Option<Box<Tree>> {
    Some(Box::new(Tree { left, word, right }))
}

/// Hands out each word from left to right, and counts those that the caller liked.
fn walk(tree: &Option<Box<Tree>>, suspender: &Suspender<bool, &'static str>) -> usize {
    let Some(tree) = tree else { return 0 };
    let left = walk(&tree.left, suspender);
    // Here the function stops, however deep in the recursion, until somebody resumes it.
    let liked = suspender.suspend(tree.word);
    left + usize::from(liked) + walk(&tree.right, suspender)
}

fn main() {
    let tree = node(
        node(leaf("a"), "function", leaf("that")),
        "waits",
        leaf("patiently"),
    );
    // The input of the first resume becomes the function's second argument; it means nothing here.
    let mut words = Coroutine::new(move |suspender, _| walk(&tree, suspender));
    let mut liked = false;
    loop {
        match words.resume(liked) {
            State::Suspended(word) => {
                liked = word.len() > 4;
                println!("{word}: {}", if liked { "liked" } else { "too short" });
            }
            State::Complete(count) => return println!("{count} words were liked"),
        }
    }
}
