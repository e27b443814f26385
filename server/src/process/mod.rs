//! What the models with several processes have in common.
//!
//! One process, the parent, starts the others, its children, and sees to it that none is left
//! behind: not as a zombie (`deaths`), not after the parent's own end (`fork`). They share nothing
//! in memory, so what they have served comes back through a pipe (`books`). The parent has one
//! thread, which waits for all of this at once. `family` puts these together, and `supervisor`
//! keeps a fixed number of children alive. `log` says which process speaks.
//!
//! Deliberately not here: which processes there are and what they do, which is what makes a model.

pub(crate) mod backoff;
pub(crate) mod books;
pub(crate) mod deaths;
pub(crate) mod family;
pub(crate) mod fork;
pub(crate) mod log;
pub(crate) mod supervisor;
