//! L2. Coroutines: functions that stop in the middle, hand a value out, and go on later.
//!
//! A [`Coroutine`] owns a stack. [`Coroutine::resume`] carries a value in and runs its function
//! until that either suspends itself, by [`Suspender::suspend`] with a value to carry out, or
//! returns. Both are one switch of context: no system call, no allocation, no scheduler.
//!
//! ```text
//!   resume(input) ──▶ Resumption {input} ───────▶ suspend() returns input
//!   State::Suspended ◀── Departing(value) ◀────── suspend(value)
//!   State::Complete  ◀── Departing(Outcome) ◀──── the function has returned or panicked
//! ```
//!
//! Values travel without a copy on the heap: each side leaves its own on its own stack, which
//! stands still, and switches with the address; the other side moves the value out at once.
//!
//! Man pages: none. Not here: scheduling, input and output. A green thread is what `sched` makes of
//! the same contexts.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe, Location};
use std::ptr;
use std::thread;

use crate::context::{
    self, DEFAULT_SLOT_BYTES, Kind, Label, Stack, StackPointer, StackPool, StackPools,
};

thread_local! {
    /// The stacks of this thread's coroutines.
    static STACKS: RefCell<StackPools> = const { RefCell::new(StackPools::new()) };
}

/// What [`Coroutine::resume`] comes back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State<Yield, Return> {
    /// The coroutine has suspended itself and handed out this value. It can be resumed.
    Suspended(Yield),
    /// The coroutine's function has returned this. It is over.
    Complete(Return),
}

/// A function on a stack of its own, which can stop in the middle and be resumed.
///
/// Each [`resume`](Coroutine::resume) carries an `Input` in; each
/// [`suspend`](Suspender::suspend) carries a `Yield` out; at the end comes the `Return`.
///
/// A coroutine stays on the OS thread that made it. Dropped while suspended, it unwinds: its
/// pending `suspend` panics with a private payload, without a message, so that every destructor on
/// its stack runs.
///
/// A function that suspends in a destructor while a panic unwinds it panics once more, which
/// aborts the process: the count of panics belongs to the OS thread, and the resumer would
/// be taken for panicking.
///
/// One such case is not told apart, because std says only *whether* something unwinds this OS
/// thread, and not how many things do: a coroutine that is resumed by a destructor while a panic
/// unwinds its resumer, panics too, and suspends in a destructor of its own. That suspension goes
/// through. Memory stays safe, but until the coroutine is resumed and has unwound to its end,
/// [`std::thread::panicking`] says `true` and locks that are released count as poisoned; and if it
/// is dropped instead, the process aborts. So destructors that may run in a panic should not
/// suspend.
///
/// # Examples
///
/// ```
/// use runtime::coroutine::{Coroutine, State};
///
/// let mut sum = Coroutine::new(|suspender, mut number: u32| {
///     let mut total = 0;
///     while number != 0 {
///         total += number;
///         number = suspender.suspend(total);
///     }
///     "done"
/// });
/// assert_eq!(sum.resume(3), State::Suspended(3));
/// assert_eq!(sum.resume(4), State::Suspended(7));
/// assert_eq!(sum.resume(0), State::Complete("done"));
/// ```
pub struct Coroutine<Input, Yield, Return> {
    /// Where it continues; meaningless once it is complete.
    context: StackPointer,
    /// Gone once it is complete.
    stack: Option<Stack>,
    /// Invariant in all three, since values that are on the stack already keep their types, and
    /// bound to its thread.
    values: PhantomData<*mut (Input, Yield, Return)>,
}

/// A coroutine's own handle, by which its function suspends itself.
pub struct Suspender<Input, Yield> {
    /// The resumer, suspended in the middle of its `resume` while the coroutine runs.
    resumer: Cell<StackPointer>,
    /// Whether a panic was unwinding the resumer already.
    resumer_panicking: Cell<bool>,
    /// The coroutine's stack: its lowest address, and its size.
    bottom: usize,
    stack_bytes: usize,
    values: PhantomData<*mut (Input, Yield)>,
}

/// Lies on the resumer's stack while the coroutine runs, and carries a value in.
struct Resumption<Input> {
    /// `None` asks the coroutine to unwind.
    input: Option<Input>,
    /// Whether a panic was unwinding the resumer already.
    panicking: bool,
}

/// Lies on the coroutine's stack and carries a value out. Two bytes of alignment leave the lowest
/// bit of its address free to tell a last one ([`LAST`]).
#[repr(C, align(2))]
struct Departing<T>(T);

/// The bit by which a departing [`Outcome`] differs from a departing yield.
const LAST: usize = 1;

/// How the coroutine's function has ended.
enum Outcome<Return> {
    Returned(Return),
    Panicked(Box<dyn Any + Send>),
}

/// The payload that unwinds a coroutine which is dropped. Private, so nobody can tell it apart
/// or make another.
struct Unwind;

/// What `with_stack_size` hands over on the first switch.
struct Birth<Function> {
    /// Who made the coroutine, and waits for it to take this.
    creator: StackPointer,
    function: Function,
    bottom: usize,
    stack_bytes: usize,
}

impl<Input, Yield, Return> Coroutine<Input, Yield, Return> {
    /// A coroutine that will run `function` on a stack of 128 KiB. It starts with the first resume,
    /// whose input is the function's second argument.
    ///
    /// # Panics
    ///
    /// When there is no memory for the stack; see [`Coroutine::with_stack_size`].
    #[track_caller]
    pub fn new<Function>(function: Function) -> Self
    where
        Function: FnOnce(&Suspender<Input, Yield>, Input) -> Return + 'static,
    {
        match Coroutine::with_stack_size(DEFAULT_SLOT_BYTES, function) {
            Ok(coroutine) => coroutine,
            Err(error) => panic!("a coroutine needs a stack: {error}"),
        }
    }

    /// As [`Coroutine::new`], on a stack of `stack_bytes`, rounded up to a power of two. The guard
    /// page is part of it. Memory is used only as far down as the stack is.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`] when there is no room for the stack; its text names the
    /// limits that may be the reason.
    #[track_caller]
    pub fn with_stack_size<Function>(stack_bytes: usize, function: Function) -> io::Result<Self>
    where
        Function: FnOnce(&Suspender<Input, Yield>, Input) -> Return + 'static,
    {
        let created = Location::caller();
        let stack = take_stack(stack_bytes)?;
        let label = Label {
            kind: Kind::Coroutine,
            id: 0,
            name: Label::UNNAMED,
            spawned: Some(created),
        };
        // SAFETY: it names nothing that could go away.
        unsafe { stack.set_label(label) };
        // SAFETY: nobody else runs on a stack that was just taken.
        let context =
            unsafe { context::prepare(stack.top(), main::<Function, Input, Yield, Return>) };
        // `main` moves it out.
        let mut birth = ManuallyDrop::new(Birth {
            creator: ptr::null_mut(),
            function,
            bottom: stack.bottom().addr(),
            stack_bytes: stack.top().addr() - stack.bottom().addr(),
        });
        let birth = &raw mut *birth;
        // SAFETY: the field lies in a live local.
        let creator = unsafe { &raw mut (*birth).creator };
        let birth = birth.expose_provenance();
        // SAFETY: the context was just prepared; it comes back as soon as it has everything.
        let (context, _) = unsafe { context::save_and_exchange(creator, context, birth) };
        Ok(Coroutine {
            context,
            stack: Some(stack),
            values: PhantomData,
        })
    }

    /// Runs the coroutine until it suspends or returns.
    ///
    /// The first `input` is its function's argument, every other one what its pending
    /// [`Suspender::suspend`] returns.
    ///
    /// # Panics
    ///
    /// When the coroutine is complete. And a panic in it comes out here, after which it is
    /// complete.
    #[inline]
    #[track_caller]
    pub fn resume(&mut self, input: Input) -> State<Yield, Return> {
        assert!(
            self.stack.is_some(),
            "a coroutine that is complete cannot be resumed"
        );
        match self.run(Some(input)) {
            State::Suspended(value) => State::Suspended(value),
            State::Complete(Outcome::Returned(value)) => State::Complete(value),
            State::Complete(Outcome::Panicked(payload)) => panic::resume_unwind(payload),
        }
    }

    /// Whether its function has returned or panicked, so that it cannot be resumed any more.
    pub fn is_complete(&self) -> bool {
        self.stack.is_none()
    }

    /// Switches to the coroutine and back. It must not be complete.
    #[inline]
    fn run(&mut self, input: Option<Input>) -> State<Yield, Outcome<Return>> {
        // The coroutine moves it out.
        let resumption = ManuallyDrop::new(Resumption {
            input,
            panicking: thread::panicking(),
        });
        let resumption = (&raw const resumption).expose_provenance();
        // SAFETY: the coroutine stands suspended in `context`, which nobody else continues: we have
        // it exclusively. It is of this thread, as it is not `Send`.
        let (context, departing) = unsafe { context::exchange(self.context, resumption) };
        self.context = context;
        if departing & LAST == 0 {
            let value = ptr::with_exposed_provenance::<Departing<Yield>>(departing);
            // SAFETY: `suspend` has left the value there and forgets it.
            return State::Suspended(unsafe { value.read() }.0);
        }
        let outcome = ptr::with_exposed_provenance::<Departing<Outcome<Return>>>(departing ^ LAST);
        // SAFETY: `main` has left the outcome there and will never run again.
        let outcome = unsafe { outcome.read() }.0;
        if let Some(stack) = self.stack.take() {
            give_back_stack(stack);
        }
        State::Complete(outcome)
    }
}

impl<Input, Yield, Return> Drop for Coroutine<Input, Yield, Return> {
    fn drop(&mut self) {
        // A function that catches the unwinding and suspends again is asked again.
        while !self.is_complete() {
            let State::Complete(Outcome::Panicked(payload)) = self.run(None) else {
                continue;
            };
            // It may have caught the unwinding and have panicked by itself. That panic goes on,
            // unless a panic is the reason for this drop.
            if !payload.is::<Unwind>() && !thread::panicking() {
                panic::resume_unwind(payload);
            }
        }
    }
}

impl<Input, Yield, Return> fmt::Debug for Coroutine<Input, Yield, Return> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Coroutine")
            .field("complete", &self.is_complete())
            .finish()
    }
}

impl<Input, Yield> Suspender<Input, Yield> {
    /// Suspends the coroutine: its resumer gets `value`, and this returns what the next resume
    /// brings.
    ///
    /// # Panics
    ///
    /// When called from anywhere but the running coroutine that this handle belongs to: from
    /// another one that was lent it, say. And while a panic unwinds the coroutine.
    #[inline]
    #[track_caller]
    pub fn suspend(&self, value: Yield) -> Input {
        let departing = ManuallyDrop::new(Departing(value));
        let address = &raw const departing;
        // The value lies on the stack that we run on. If that is the coroutine's, the coroutine is
        // what runs: nobody else does so there. No flag could say this as surely, since a scheduler
        // may have switched from one coroutine into another in the middle of both.
        if address.addr().wrapping_sub(self.bottom) >= self.stack_bytes {
            drop(ManuallyDrop::into_inner(departing));
            panic!("a coroutine can be suspended only by itself while it runs");
        }
        if thread::panicking() {
            let allowed = self.resumer_panicking.get();
            assert!(
                allowed,
                "a coroutine cannot suspend while a panic unwinds it"
            );
        }
        let (resumer, address) = (self.resumer.get(), address.expose_provenance());
        // SAFETY: the resumer waits for us, suspended by the switch that brought us here, and on
        // this thread, as neither of us is `Send`.
        let next = unsafe { context::exchange(resumer, address) };
        self.accept(next).unwrap_or_else(|| unwind())
    }

    /// Takes over what a resumer has brought; no input means to unwind.
    #[inline]
    fn accept(&self, (resumer, address): (StackPointer, usize)) -> Option<Input> {
        let resumption = ptr::with_exposed_provenance::<Resumption<Input>>(address);
        // SAFETY: the resumer has switched here with the address of its local, whose content is
        // ours: it does not look at it again.
        let resumption = unsafe { resumption.read() };
        self.resumer.set(resumer);
        self.resumer_panicking.set(resumption.panicking);
        resumption.input
    }
}

impl<Input, Yield> fmt::Debug for Suspender<Input, Yield> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Suspender").finish_non_exhaustive()
    }
}

#[cold]
fn unwind() -> ! {
    // Unlike `panic!` this calls no panic hook, so nothing is printed.
    panic::resume_unwind(Box::new(Unwind))
}

/// The first and last function on a coroutine's stack.
unsafe extern "C" fn main<Function, Input, Yield, Return>(argument: usize) -> !
where
    Function: FnOnce(&Suspender<Input, Yield>, Input) -> Return,
{
    let birth = ptr::with_exposed_provenance::<Birth<Function>>(argument);
    // SAFETY: `with_stack_size` switches here with the address of its local, whose content is ours.
    let birth = unsafe { birth.read() };
    let function = birth.function;
    let suspender = Suspender {
        resumer: Cell::new(ptr::null_mut()),
        resumer_panicking: Cell::new(false),
        bottom: birth.bottom,
        stack_bytes: birth.stack_bytes,
        values: PhantomData,
    };
    // Everything is here; back to the creator, and wait for the first resume.
    // SAFETY: the creator waits, suspended by the switch that brought us here.
    let first = unsafe { context::exchange(birth.creator, 0) };
    // No panic may leave this function, for nothing is above it; `suspender` is not used after one.
    let result = panic::catch_unwind(AssertUnwindSafe(|| match suspender.accept(first) {
        Some(input) => function(&suspender, input),
        None => {
            drop(function);
            unwind()
        }
    }));
    let outcome = match result {
        Ok(value) => Outcome::Returned(value),
        Err(payload) => Outcome::Panicked(payload),
    };
    let departing = ManuallyDrop::new(Departing(outcome));
    let address = (&raw const departing).expose_provenance() | LAST;
    // SAFETY: the resumer waits for us. Nothing on this stack is needed but the outcome, which it
    // moves out before it gives the stack back.
    unsafe { context::exchange(suspender.resumer.get(), address) };
    unreachable!("a coroutine that is complete must not be continued")
}

/// Gives the memory of stacks that no coroutine of this thread uses at present back to the system.
///
/// A stack that is free is kept with its memory, so that the next coroutine costs no system call.
/// Worth calling when many coroutines have ended and as many are not soon to come.
pub fn trim_stacks() {
    let _ = STACKS.try_with(|stacks| stacks.borrow_mut().trim());
}

fn take_stack(stack_bytes: usize) -> io::Result<Stack> {
    let taken = STACKS.try_with(|stacks| stacks.borrow_mut().take(stack_bytes));
    // In a destructor of another thread-local the pools may have gone already; then the stack gets
    // a slab for itself, which goes with it.
    taken.unwrap_or_else(|_| StackPool::new(stack_bytes).take())
}

fn give_back_stack(stack: Stack) {
    let mut stack = Some(stack);
    let _ = STACKS.try_with(|stacks| {
        if let Some(stack) = stack.take() {
            stacks.borrow_mut().give_back(stack);
        }
    });
    // Without pools it ends here, and the last one of its slab unmaps that.
    drop(stack);
}
